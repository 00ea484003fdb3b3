"""The Python environment of an image, ``/opt/tidegate``: made by uv from a hashed lock, the same bytes every time.

It is an environment of its own (``pyvenv.cfg``) beside the base image's Python, so what the base has installed neither
helps nor counts. Bytecode is compiled beforehand: a read-only root file system could not keep it.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidegate.errors import ConfigError
from tidegate.images import uv
from tidegate.images.layer import Entry, entries
from tidegate.plan.key import environment_of

ROOT = "opt/tidegate"
_SHEBANG = re.compile(rb"#!.*python[\d.]*\s*\n")
_OF_UV = ("uv_cache.json", "uv_build.json", "REQUESTED", "direct_url.json")  # times and paths of the building machine


@dataclass(frozen=True)
class Interpreter:
    """The Python of an image.

    Attributes:
        path: where the base image has it.
        version: ``3.11``.
        machine: ``x86_64`` or ``aarch64``.
    """

    path: str
    version: str
    machine: str

    @property
    def site(self) -> str:
        """Where packages stand, relative to the environment."""
        return f"lib/python{self.version}/site-packages"


def install(lock: Path, tree: Path, python: Interpreter, options: Sequence[str] = ()) -> None:
    """Make the environment of a lock in the folder ``tree``.

    Raises:
        ConfigError, Refused, Trouble: as ``uv.install``; a package may also want a place outside (``package-outside``).
    """
    site = tree / python.site
    site.mkdir(parents=True)
    uv.install(lock, site, machine=python.machine, python=python.version, options=options)
    (site / ".lock").unlink(missing_ok=True)
    _move_scripts(site, tree / "bin")
    for info in sorted(site.glob("*.dist-info")):
        _rewrite_record(info, tree)
    compile_all(tree, python)


def interpreter_files(python: Interpreter) -> list[Entry]:
    """What makes a folder an environment: its ``pyvenv.cfg`` and the names of its Python."""
    home = str(Path(python.path).parent)
    text = f"home = {home}\ninclude-system-site-packages = false\nversion = {python.version}\n"
    names = ("python", "python3", f"python{python.version}")
    return [Entry(f"{ROOT}/pyvenv.cfg", text.encode()), *(Entry(f"{ROOT}/bin/{n}", link=python.path) for n in names)]


def files(tree: Path) -> list[Entry]:
    """What the environment in the folder holds, as entries of a layer."""
    found = list(entries(tree, ROOT))
    if outside := next((e for e in found if e.link), None):
        raise ConfigError(f"a package brings the link {outside.path} to {outside.link}", code="package-outside")
    return found


def distributions(site: Path) -> list[str]:
    """Name and version of everything installed, as the folders of their metadata spell it."""
    return sorted(p.name.removesuffix(".dist-info") for p in site.glob("*.dist-info"))


def digest(names: Sequence[str], python: Interpreter) -> str:
    """The environment's digest, as ``plan.key.environment_digest()`` gives it inside the image."""
    return environment_of(sorted(set(names)), python.version, python.machine)


def script(module: str, function: str) -> bytes:
    """A console script of the environment."""
    return f"#!/{ROOT}/bin/python\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n".encode()


def record_line(path: str, data: bytes) -> list[str]:
    """A line of RECORD: path, hash and size of an installed file."""
    hashed = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return [path, f"sha256={hashed}", str(len(data))]


def record(lines: Sequence[Sequence[str]]) -> bytes:
    """The bytes of a RECORD."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


def compile_all(tree: Path, python: Interpreter) -> None:
    """Compile every module, when this interpreter writes the bytecode that the image's Python reads."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" != python.version:
        return
    command = [sys.executable, "-m", "compileall", "-qq", "-j", "1", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(tree), "-p", f"/{ROOT}", str(tree)]
    # sets of constants are written in the order of their hashes; a module that is no Python for us stays uncompiled
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONHASHSEED": "0"}
    subprocess.run(command, check=False, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _move_scripts(site: Path, target: Path) -> None:
    """Scripts come from uv with this machine's Python in their first line, in a folder of the packages' own."""
    target.mkdir(exist_ok=True)
    for path in sorted((site / "bin").glob("*")):
        data = path.read_bytes()
        if path.is_file() and _SHEBANG.match(data):
            path.write_bytes(_SHEBANG.sub(f"#!/{ROOT}/bin/python\n".encode(), data, count=1))
        shutil.move(path, target / path.name)
    shutil.rmtree(site / "bin", ignore_errors=True)


def _rewrite_record(info: Path, tree: Path) -> None:
    for name in _OF_UV:
        (info / name).unlink(missing_ok=True)
    file = info / "RECORD"
    if not file.is_file():
        return
    lines: list[list[str]] = []
    for path, *rest in csv.reader(file.read_text().splitlines()):
        if path.startswith("bin/"):
            lines.append(record_line(f"../../../{path}", (tree / path).read_bytes()))
        elif not (path.startswith(info.name) and path.rpartition("/")[2] in _OF_UV):
            lines.append([path, *rest])
    file.write_bytes(record(sorted(lines)))


def metadata(site: Path) -> Mapping[str, tuple[str, str]]:
    """Name and version of each distribution by the name of its folder, as its METADATA says them."""
    return {info.name: _name_and_version(info / "METADATA") for info in sorted(site.glob("*.dist-info"))}


def _name_and_version(path: Path) -> tuple[str, str]:
    said: dict[str, str] = {}
    for line in path.read_text(errors="replace").splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(": ")
        said.setdefault(key, value)
    return said.get("Name", path.parent.name), said.get("Version", "")
