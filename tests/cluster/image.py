"""Images of the tests' own Containerfiles and of the project's families, pushed to the cluster's registry and named by digest."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import setting
from tests.cluster.ground import PLAIN
from tests.cluster.shell import call
from tidegate.images.container import find
from tidegate.images.reference import parse
from tidegate.images.registry import Registry

FOLDER = Path(__file__).parent / "images"


def build_image(name: str, scratch: Path) -> str:
    """Build the image of a folder; return it as pods name it."""
    context = scratch / name
    shutil.copytree(FOLDER / name, context)
    compile_program(name, context)
    here = parse(f"{setting.REGISTRY}/tidegate-test/{name}:1")
    digest = _built(context, str(here))
    return f"{setting.PULLED_FROM}/tidegate-test/{name}@{digest}"


def build_families(root: Path, base: str, *families: str, source: Path | None = None) -> None:
    """Build the families of a working tree with its own tidegate, or another's; its images.lock names them as pods do."""
    words = ["images", "build", *families, "--push", f"{setting.REGISTRY}/tidegate-test", "--base", base]
    env = {**PLAIN, "PYTHONPATH": str(source or root / "src")}
    done = subprocess.run([sys.executable, "-m", "tidegate", *words], env=env, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lock = root / "images.lock"
    lock.write_text(lock.read_text().replace(f'"{setting.REGISTRY}/', f'"{setting.PULLED_FROM}/'))


def compile_program(name: str, target: Path) -> None:
    """Compile the programs of an image, if it has any, into a folder."""
    target.mkdir(exist_ok=True)
    for source in (FOLDER / name).glob("*.c"):
        call("cc", "-static", "-O1", "-o", str(target / source.stem), str(source))


def _built(context: Path, tag: str) -> str:
    if setting.BUILD:
        call(*setting.BUILD, str(context), tag, "--build-arg", f"BASE={setting.BASE}")
        target = parse(tag)
        return Registry(target.host).manifest(target.repository, target.tag).digest
    tool = find()
    tool.build(context / "Containerfile", context, setting.BASE, tag)
    return tool.push(tag, parse(tag))
