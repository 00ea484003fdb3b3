"""Write a PipelineSpec as YAML, deterministically."""

from __future__ import annotations

import yaml

from tidegate.ir.load import Definition


def to_yaml(definition: Definition) -> str:
    """One document, or two with the platform settings, keys sorted, lines never folded."""
    documents = [dict(definition.spec)]
    if definition.platforms:
        documents.append({"platforms": dict(definition.platforms)})
    return yaml.dump_all(documents, sort_keys=True, width=2**31 - 1, allow_unicode=True, Dumper=yaml.CSafeDumper)
