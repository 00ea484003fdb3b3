"""Images from a Containerfile, by buildah, podman or docker: for what packages alone cannot say."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import ConfigError, Refused
from tidegate.images.reference import Reference, parse
from tidegate.images.registry import Registry

TOOLS = ("buildah", "podman", "docker")
_TAIL = 1500


@dataclass(frozen=True)
class Tool:
    """A program that builds images."""

    name: str
    path: str

    def build(self, containerfile: Path, root: Path, base: str, tag: str) -> None:
        """Build an image under a tag, with the build argument ``BASE``.

        Raises:
            Refused: it does not build (code ``build-failed``).
        """
        if base and (plain := self._plain(parse(base))):
            _run(self.path, "pull", *plain, base)  # alone, so that nothing else is pulled without TLS
        word = "bud" if self.name == "buildah" else "build"
        _run(self.path, word, "--build-arg", f"BASE={base}", "-t", tag, "-f", str(containerfile), str(root))

    def look(self, tag: str, functions: Sequence[str]) -> dict[str, Any]:
        """Ask an image what is inside it.

        Raises:
            Refused: it does not run, or has no tidegate (code ``build-failed``).
        """
        ask = ("python", "-m", "tidegate.images.inside", *functions)
        if self.name != "buildah":
            said = _run(self.path, "run", "--rm", "--entrypoint", ask[0], tag, *ask[1:])
        else:
            container = _run(self.path, "from", "--pull-never", tag).strip()
            try:
                said = _run(self.path, "run", container, "--", *ask)
            finally:
                _run(self.path, "rm", container)
        found: dict[str, Any] = json.loads(said.strip().rpartition("\n")[2])
        return found

    def push(self, tag: str, target: Reference) -> str:
        """Push an image; return its digest.

        Raises:
            Refused: it cannot be pushed (code ``build-failed``).
        """
        if self.name == "docker":
            _run(self.path, "tag", tag, str(target))
            _run(self.path, "push", str(target))
            said = json.loads(_run(self.path, "inspect", "--format", "{{json .RepoDigests}}", str(target)))
            return next(str(d).partition("@")[2] for d in said if d.startswith(f"{target.host}/{target.repository}@"))
        with tempfile.TemporaryDirectory(prefix="tidegate-push-") as folder:
            file = Path(folder) / "digest"
            _run(self.path, "push", *self._plain(target), "--digestfile", str(file), tag, f"docker://{target}")
            return file.read_text().strip()

    def _plain(self, image: Reference) -> list[str]:
        """What makes the tool speak plain http to a registry of this machine; docker does so by itself."""
        local = Registry(image.host).address.startswith("http://") and self.name != "docker"
        return ["--tls-verify=false"] if local else []


def find() -> Tool:
    """Return the first tool that is here.

    Raises:
        ConfigError: there is none (code ``builder-missing``).
    """
    for name in TOOLS:
        if path := shutil.which(name):
            return Tool(name, path)
    raise ConfigError(
        "the family has a Containerfile, and nothing here builds one",
        allowed=", ".join(TOOLS),
        hint="Install one, or replace the Containerfile by requirements.txt: that needs none.",
        code="builder-missing",
    )


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = (done.stderr or done.stdout).strip()[-_TAIL:]
        raise Refused(f"{Path(command[0]).name} {command[1]} failed: {tail}", code="build-failed")
    return done.stdout
