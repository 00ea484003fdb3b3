"""The registry: what may be served, by whose word and on what evidence, as a fold over a ledger."""
