"""Authoring: components in kfp's own DSL, with their code in the image instead of inline."""
