"""A project with one family and one component, a base image, and a package: all made here, nothing fetched."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from tests.images.server import FakeRegistry, sha256
from tidegate.images.registry import DOCKER_MANIFEST

STATUS = """Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Version: 1
"""
COMPONENT = """import tidegate
from components.grade import marks


@tidegate.component(image="base")
def grade(n: int) -> float:
    return marks.mark(n)
"""


def layer(files: dict[str, str | bytes | None], links: dict[str, str] | None = None) -> tuple[bytes, str]:
    """A layer's bytes and the digest of its tar."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content or b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return gzip.compress(raw.getvalue(), mtime=0), sha256(raw.getvalue())


def base_image(
    registry: FakeRegistry, *layers: tuple[bytes, str], path: str = "/usr/bin:/bin", arch: str = "amd64"
) -> str:
    """Put a base image into the registry; return its name by digest."""
    made = layers or (
        layer({"usr/bin/python3.11": "", "var/lib/dpkg/status": STATUS}, {"usr/bin/python3": "python3.11"}),
    )
    config: dict[str, Any] = {"architecture": arch, "os": "linux", "config": {"Env": [f"PATH={path}", "PYTHONPATH=/x"]}}
    config["rootfs"] = {"type": "layers", "diff_ids": [d for _, d in made]}
    body = json.dumps(config).encode()
    parts = [
        {
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "digest": registry.add("python", b),
            "size": len(b),
        }
        for b, _ in made
    ]
    about = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": registry.add("python", body),
        "size": len(body),
    }
    manifest = {"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": about, "layers": parts}
    digest = registry.put("python", "3.11", DOCKER_MANIFEST, json.dumps(manifest).encode())
    return f"{registry.host}/python@{digest}"


def wheel(folder: Path, name: str = "weights") -> tuple[Path, str]:
    """A wheel with a module and a console script; its file and sha256."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": "WORDS = {'b', 'a', 'c'}\n\n\ndef main():\n    return 0 if 'a' in {'x', 'a', 'y'} else 1\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    record = "".join(f"{n},,\n" for n in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as z:
        for n, text in {**files, f"{info}/RECORD": record}.items():
            z.writestr(n, text)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def make(root: Path, wheels: Path) -> Path:
    """Write the project; return its root."""
    (root / "components" / "grade").mkdir(parents=True)
    (root / "components" / "grade" / "component.py").write_text(COMPONENT)
    (root / "components" / "grade" / "marks.py").write_text("def mark(n: int) -> float:\n    return n / 2\n")
    (root / "images" / "base").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.tidegate]\n")
    wheels.mkdir(exist_ok=True)
    _, digest = wheel(wheels)
    (root / "images" / "base" / "requirements.txt").write_text(f"weights==1.0 --hash=sha256:{digest}\n")
    return root
