"""Names of images: ``[HOST[:PORT]/]NAME[:TAG][@sha256:…]``, as the distribution specification spells them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tidegate.errors import ConfigError

HUB = "docker.io"  # what a name without a host means everywhere
_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_SPELLING = re.compile(
    rf"(?:(?P<host>{_HOST})/)?(?P<path>{_PART}(?:/{_PART})*)(?::(?P<tag>\w[\w.-]{{0,127}}))?(?:@(?P<digest>sha256:[0-9a-f]{{64}}))?",
    re.ASCII,
)
ALLOWED = "[HOST[:PORT]/]NAME[:TAG][@sha256:<64 hex digits>], the name in lower case."


@dataclass(frozen=True)
class Reference:
    """One image's name, in parts."""

    host: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag and not self.digest else ""
        return f"{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")

    def pinned(self, digest: str) -> Reference:
        """The same image by its digest."""
        return replace(self, digest=digest)

    @property
    def name(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or "latest"


def parse(text: str) -> Reference:
    """Read an image's name.

    Raises:
        ConfigError: it is none (code ``image-name``).
    """
    found = _SPELLING.fullmatch(text)
    if not found or len(text) > 4096:
        raise ConfigError(f"{text[:200]!r} is no image name", allowed=ALLOWED, code="image-name")
    host, path = found["host"] or "", found["path"]
    if host and not ("." in host or ":" in host or host == "localhost"):
        host, path = "", f"{host}/{path}"
    if not re.fullmatch(rf"{_PART}(?:/{_PART})*", path):
        raise ConfigError(f"{text!r} is no image name", allowed=ALLOWED, code="image-name")
    if not host or host == HUB:
        host, path = HUB, path if "/" in path else f"library/{path}"
    return Reference(host, path, found["tag"] or "", found["digest"] or "")


def below(prefix: str, family: str) -> Reference:
    """The repository of a family under the registry (and path) that somebody pushes to.

    Raises:
        ConfigError: the prefix is no registry (code ``image-name``).
    """
    made = parse(f"{prefix.removesuffix('/')}/{family}")
    if made.host == HUB and not prefix.startswith(HUB) and "/" not in prefix:
        raise ConfigError(
            f"--push {prefix!r} names no registry",
            allowed="HOST[:PORT][/PATH], such as localhost:5000/team.",
            code="image-name",
        )
    return made
