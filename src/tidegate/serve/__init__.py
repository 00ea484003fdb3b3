"""Serving: a registered model, by digest, behind the Open Inference Protocol."""
