"""The plan: frozen data, the only thing engines read."""
