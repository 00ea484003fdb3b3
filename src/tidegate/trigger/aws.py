"""What a request to AWS, or to a server that speaks its language, is signed with: the usual names, files and roles."""

from __future__ import annotations

import os
from typing import Any

from tidegate.errors import ConfigError


def session() -> Any:
    """A session of botocore, which knows every place where credentials may be.

    Raises:
        ConfigError: botocore is not installed (code ``notify-extra``).
    """
    try:
        from botocore.session import Session
    except ImportError as e:
        raise ConfigError(
            "notifications of SQS and MinIO cannot be asked for without botocore, which signs the requests",
            allowed="tidegate with its extra 'notify'.",
            hint="pip install 'tidegate[notify]'",
            code="notify-extra",
        ) from e
    return Session()


def region() -> str:
    """The region that the environment says."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
