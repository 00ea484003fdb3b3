"""A bucket of our own with the users of the manifests."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import setting
from tests.cluster.shell import call
from tests.engines.argo.rendered import MANIFESTS
from tidegate.store.object import ObjectStore

USERS = ("steps", "submit", "registrar")


@dataclass(frozen=True)
class Bucket:
    """The bucket, and how MinIO's client is asked about it."""

    name: str
    folder: Path

    @property
    def endpoint(self) -> str:
        return setting.endpoint()

    @property
    def uri(self) -> str:
        return f"s3://{self.name}/team"

    def mc(self, *words: str) -> str:
        return call("mc", "--config-dir", str(self.folder), *words, MC_HOST_it=setting.MINIO)

    def values(self, user: str, *, inside: bool = False) -> dict[str, str]:
        """What a user's Secret holds."""
        keys = {"AWS_ACCESS_KEY_ID": f"{self.name}-{user}", "AWS_SECRET_ACCESS_KEY": f"secret-of-{user}"}
        store = {"TIDEGATE_STORE": self.uri, "AWS_ENDPOINT_URL": setting.endpoint(inside=inside)}
        return {**store, **keys, "AWS_REGION": "us-east-1"}

    def store(self, user: str) -> ObjectStore:
        options: dict[str, Any] = {k.lower(): v for k, v in self.values(user).items() if k.startswith("AWS_")}
        return ObjectStore(self.uri, **options)

    def give(self, key: str, text: str) -> None:
        """Put an object where no user of ours may write."""
        file = self.folder / "given"
        file.write_text(text)
        self.mc("cp", str(file), f"it/{self.name}/team/{key}")

    def add_user(self, user: str) -> None:
        text = (MANIFESTS / "store" / f"{user}.json").read_text()
        (self.folder / f"{user}.json").write_text(
            text.replace("STORE", f"{self.name}/team").replace("BUCKET", self.name)
        )
        self.mc("admin", "policy", "create", "it", f"{self.name}-{user}", str(self.folder / f"{user}.json"))
        self.mc("admin", "user", "add", "it", f"{self.name}-{user}", f"secret-of-{user}")
        self.mc("admin", "policy", "attach", "it", f"{self.name}-{user}", "--user", f"{self.name}-{user}")

    def remove_user(self, user: str) -> None:
        self.mc("admin", "user", "rm", "it", f"{self.name}-{user}")
        self.mc("admin", "policy", "rm", "it", f"{self.name}-{user}")


@contextlib.contextmanager
def new_bucket(folder: Path) -> Iterator[Bucket]:
    made = Bucket(f"tidegate-test-{secrets.token_hex(4)}", folder)
    folder.mkdir(exist_ok=True)
    made.mc("mb", f"it/{made.name}")
    try:
        for user in USERS:
            made.add_user(user)
        yield made
    finally:
        made.mc("rb", "--force", f"it/{made.name}")
        for user in USERS:
            made.remove_user(user)
