"""Where the cluster of these tests is, by environment variables; README.md explains them."""

import os
from urllib.parse import urlsplit

# read when pytest starts: each test's own environment has nothing of the developer's
MINIO = os.environ.get("TIDEGATE_TEST_MINIO", "")
INSIDE = os.environ.get("TIDEGATE_TEST_MINIO_INSIDE", "")
REGISTRY = os.environ.get("TIDEGATE_TEST_REGISTRY", "localhost:5000").rstrip("/")
PULLED_FROM = os.environ.get("TIDEGATE_TEST_REGISTRY_INSIDE", REGISTRY).rstrip("/")
BASE = os.environ.get("TIDEGATE_TEST_BASE", f"{REGISTRY}/python:3.11")
BUILD = os.environ.get("TIDEGATE_TEST_BUILD", "").split()
RESTART = os.environ.get("TIDEGATE_TEST_RESTART_NODE", "")
HOST = os.environ.get("TIDEGATE_TEST_HOST", urlsplit(MINIO).hostname or "")
AT_ONCE = int(os.environ.get("TIDEGATE_TEST_AT_ONCE", "16"))


def endpoint(*, inside: bool = False) -> str:
    """The address of the object store without its credentials, from here or from pods."""
    parts = urlsplit(MINIO)
    here = f"{parts.scheme}://{parts.hostname}:{parts.port}"
    return (INSIDE or here) if inside else here
