import json
import sys
from pathlib import Path

import pytest

from tests.images.conftest import Cli
from tests.images.project import base_image
from tests.images.server import FakeRegistry, sha256
from tidegate.author.images import read_lock
from tidegate.images.registry import OCI_MANIFEST

BODY = b'{"schemaVersion": 2}'
DIGEST = sha256(BODY)
INSIDE = {
    "environment": DIGEST,
    "distributions": [["weights", "1.0"]],
    "code": {"components.grade.component:grade": DIGEST},
}
# writes down how it was called and answers as the tool does
TOOL = f"""#!{sys.executable}
import json, pathlib, sys
words = sys.argv[1:]
here = pathlib.Path(__file__).parent
with (here / "calls").open("a") as f:
    f.write(json.dumps(words) + "\\n")
if (here / "fails").exists():
    sys.exit("no space")
if words[0] == "from":
    print("container-1")
if words[0] == "run":
    print({json.dumps(INSIDE)!r})
if words[0] == "inspect":
    print(json.dumps([words[-1].rpartition(":")[0] + "@{DIGEST}"]))
if "--digestfile" in words:
    pathlib.Path(words[words.index("--digestfile") + 1]).write_text("{DIGEST}\\n")
"""


@pytest.fixture
def tools(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (root / "images" / "base" / "Containerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize("name", ["buildah", "podman", "docker"])
def test_a_containerfile_is_built_by_the_tool_that_is_here_and_asked_what_is_inside(
    cli: Cli, registry: FakeRegistry, root: Path, tools: Path, name: str
) -> None:
    (tools / name).write_text(TOOL)
    (tools / name).chmod(0o755)
    base = base_image(registry)
    registry.put("team/base", "build", OCI_MANIFEST, BODY)  # what the tool would have pushed
    done = cli("build", "--base", base, "--push", f"{registry.host}/team")
    assert done.returncode == 0, done.stderr
    calls = [json.loads(line) for line in (tools / "calls").read_text().splitlines()]
    assert f"BASE={base}" in next(c for c in calls if c[0] in ("bud", "build"))
    assert ["pull", "--tls-verify=false", base] in calls or name == "docker"
    locked = read_lock(root).families["base"]
    assert locked.image == f"{registry.host}/team/base@{DIGEST}"
    assert (locked.environment, dict(locked.code)) == (DIGEST, INSIDE["code"])
    assert "pkg:pypi/weights@1.0" in (root / "dist/images/base.cdx.json").read_text()


def test_a_build_that_fails_is_said_with_the_tools_words(
    cli: Cli, registry: FakeRegistry, root: Path, tools: Path
) -> None:
    (tools / "buildah").write_text(TOOL)
    (tools / "buildah").chmod(0o755)
    (tools / "fails").touch()
    done = cli("build", "--base", base_image(registry))
    assert "error[build-failed]: buildah pull failed: no space" in done.stderr
    assert done.returncode == 1


def test_without_a_tool_a_containerfile_is_refused(cli: Cli, registry: FakeRegistry, root: Path, tools: Path) -> None:
    done = cli("build", "--base", base_image(registry))
    assert "error[builder-missing]" in done.stderr
    assert done.returncode == 2


def test_without_push_a_containers_image_stays_with_the_tool(
    cli: Cli, registry: FakeRegistry, root: Path, tools: Path
) -> None:
    (tools / "podman").write_text(TOOL)
    (tools / "podman").chmod(0o755)
    done = cli("build", "--base", base_image(registry))
    assert done.returncode == 0, done.stderr
    assert "stays with podman as localhost/tidegate-base:build" in done.stderr
    assert "layout" not in done.stdout
    assert not (root / "images.lock").exists()
