"""A namespace of our own, made as docs/argo.md says: an overlay of the manifests, and the two Secrets."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.cluster import setting
from tests.cluster.bucket import Bucket
from tests.cluster.shell import kubectl
from tests.engines.argo.rendered import MANIFESTS

SECRETS = {"tidegate-store": "steps", "tidegate-store-registrar": "registrar"}


@dataclass(frozen=True)
class Space:
    """A namespace."""

    name: str
    folder: Path

    def kubectl(self, *words: str, stdin: str = "") -> str:
        return kubectl("--namespace", self.name, *words, stdin=stdin)

    def make_secret(self, name: str, values: dict[str, str]) -> None:
        """Make a Secret from an env file, anew where it is there."""
        file = self.folder / f"{name}.env"
        file.write_text("".join(f"{k}={v}\n" for k, v in values.items()))
        self.kubectl("delete", "secret", name, "--ignore-not-found")
        self.kubectl("create", "secret", "generic", name, f"--from-env-file={file}")

    def stock(self, bucket: Bucket) -> None:
        """Make the two Secrets of the store."""
        for name, user in SECRETS.items():
            self.make_secret(name, bucket.values(user, inside=True))

    def kubeconfig(self, account: str) -> Path:
        """A kubeconfig for a service account of this namespace."""
        token = self.kubectl("create", "token", account, "--duration", "4h").strip()
        return self._config(account, token)

    def stranger(self, name: str) -> Path:
        """A kubeconfig with a token that the cluster does not know."""
        return self._config(name, "unknown")

    def _config(self, account: str, token: str) -> Path:
        config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
        config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
        file = self.folder / f"{account}.kubeconfig"
        file.write_text(yaml.safe_dump(config))
        return file


def _overlay(folder: Path, name: str, components: Sequence[str]) -> dict[str, Any]:
    to = os.path.relpath(MANIFESTS, folder.resolve())
    port = urlsplit(setting.endpoint(inside=True)).port or 443
    reach = [{"op": "replace", "path": "/spec/egress", "value": [{"ports": [{"protocol": "TCP", "port": port}]}]}]
    target = {"kind": "NetworkPolicy", "name": "tidegate-steps-reach-store"}
    return {
        "namespace": name,
        "resources": [to],
        "components": [f"{to}/{c}" for c in components],
        "patches": [{"target": target, "patch": yaml.safe_dump(reach)}],
    }


@contextlib.contextmanager
def new_space(folder: Path, *components: str) -> Iterator[Space]:
    """Make a namespace with components of the manifests, such as ``quota``."""
    made = Space(f"tidegate-test-{secrets.token_hex(4)}", folder)
    folder.mkdir(exist_ok=True)
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(_overlay(folder, made.name, components)))
    kubectl("apply", "-k", str(folder))
    try:
        yield made
    finally:
        kubectl("delete", "namespace", made.name, "--wait=false")
