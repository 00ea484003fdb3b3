"""Engines: each runs a plan. They know nothing of each other."""
