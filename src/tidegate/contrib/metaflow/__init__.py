"""Metaflow flows as components of pipelines: ``flow_component``."""

from __future__ import annotations

from tidegate.contrib.metaflow.component import flow_component

__all__ = ["flow_component"]
