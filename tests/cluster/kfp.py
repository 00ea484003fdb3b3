"""Where Kubeflow Pipelines is, and what somebody needs who runs on it."""

import contextlib
import os
from collections.abc import Iterator

from tests.cluster.bucket import Bucket
from tests.cluster.shell import kubectl
from tests.cluster.space import SECRETS

KFP = os.environ.get("TIDEGATE_TEST_KFP", "")
NAMESPACE = os.environ.get("TIDEGATE_TEST_KFP_NAMESPACE", "kubeflow")


def kfp_env(name: str, bucket: Bucket) -> dict[str, str]:
    """The environment of runs in an experiment, with the two Secrets whose names begin with its name."""
    return {
        **bucket.values("submit"),
        "TIDEGATE_KFP_HOST": KFP,
        "TIDEGATE_KFP_EXPERIMENT": name,
        "TIDEGATE_KFP_STORE_SECRET": f"{name}-tidegate-store",
        "TIDEGATE_KFP_REGISTRAR_SECRET": f"{name}-tidegate-store-registrar",
    }


@contextlib.contextmanager
def store_secrets(name: str, bucket: Bucket) -> Iterator[None]:
    """The two Secrets, while the block runs."""
    for secret, user in SECRETS.items():
        literals = [f"--from-literal={k}={v}" for k, v in bucket.values(user, inside=True).items()]
        kubectl("-n", NAMESPACE, "create", "secret", "generic", f"{name}-{secret}", *literals)
    try:
        yield
    finally:
        for secret in SECRETS:
            kubectl("-n", NAMESPACE, "delete", "secret", f"{name}-{secret}", "--ignore-not-found")
