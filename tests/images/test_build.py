import gzip
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.images.conftest import Cli
from tests.images.project import base_image, wheel
from tests.images.server import FakeRegistry, sha256
from tidegate.author.closure import closure
from tidegate.author.images import check_code, check_pinned, read_lock
from tidegate.images import family, shim
from tidegate.images.build import put_together
from tidegate.project import Project

DIGEST = "sha256:" + "a" * 64
PT_LOAD, PT_INTERP = 1, 3


def unpack(registry: FakeRegistry, repo: str, target: Path, skip: int = 1) -> dict[str, object]:
    """Lay the layers above the base over each other; return the configuration."""
    body = json.loads(next(b for (r, n), (_, b) in registry.manifests.items() if r == repo and len(n) == 12))
    for part in body["layers"][skip:]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(registry.blobs[repo, part["digest"]]))) as tar:
            tar.extractall(target, filter="tar")
    config: dict[str, object] = json.loads(registry.blobs[repo, body["config"]["digest"]])
    assert (
        config["rootfs"]["diff_ids"][skip:]
        == [  # type: ignore[index]
            sha256(gzip.decompress(registry.blobs[repo, d["digest"]])) for d in body["layers"][skip:]
        ]
    )
    return config


def test_built_twice_with_nothing_kept_an_image_is_the_same_bytes(
    root: Path, registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_image(registry)
    made = []
    for turn in ("1", "2"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / turn))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        copy = tmp_path / f"at-{turn}"
        shutil.copytree(root, copy)
        os.utime(copy / "pyproject.toml", (int(turn), int(turn)))
        made.append(put_together(family.read(Project(copy), "base", base), lambda _: None))
    first, second = made
    assert first.image.manifest == second.image.manifest
    assert (first.image.config, first.bill, first.environment) == (second.image.config, second.bill, second.environment)
    assert [la.file.read_bytes() for la in first.image.layers] == [la.file.read_bytes() for la in second.image.layers]


def test_the_lock_says_what_the_image_itself_computes(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path
) -> None:
    done = cli("build", "--base", base_image(registry), "--push", f"{registry.host}/team")
    assert done.returncode == 0, done.stderr
    image = tmp_path / "image"
    unpack(registry, "team/base", image)
    home = image / "opt" / "tidegate"
    python = home / "bin" / "python"
    assert os.readlink(python) == "/usr/bin/python3.11"
    python.unlink()
    python.symlink_to(Path(sys.base_prefix) / "bin" / "python3.11")
    (home / "pyvenv.cfg").write_text((home / "pyvenv.cfg").read_text().replace("/usr/bin", f"{sys.base_prefix}/bin"))
    env = {"PATH": str(home / "bin"), "TIDEGATE_PROJECT": str(image / "app")}
    ask = [python, "-m", "tidegate.images.inside", "components.grade.component:grade", "no.such:thing"]
    said = json.loads(subprocess.run(ask, cwd=image / "app", env=env, capture_output=True, check=True).stdout)
    locked = read_lock(root).families["base"]
    assert said["environment"] == locked.environment
    assert said["code"] == dict(locked.code)
    assert [n for n, _ in said["distributions"]] == ["tidegate", "weights"]
    script = (home / "bin" / "weights").read_text()
    assert script.startswith("#!/opt/tidegate/bin/python\n")


def test_what_was_pushed_is_what_a_cluster_may_run(cli: Cli, registry: FakeRegistry, root: Path) -> None:
    body = json.loads(cli("build", "base", "--base", base_image(registry), "--push", registry.host, "--json").stdout)
    built = body["images"][0]
    lock = read_lock(root)
    check_pinned(lock.image("base"))
    for function, digest in built["code"].items():
        check_code(lock, built["image"], function, digest)
    assert lock.image("base") == built["image"] == f"{registry.host}/base@{built['digest']}"
    assert sha256(registry.manifests["base", built["digest"]][1]) == built["digest"]


def test_an_image_runs_as_nobody_in_the_project_with_its_own_python_first(
    cli: Cli, registry: FakeRegistry, tmp_path: Path
) -> None:
    cli("build", "--base", base_image(registry), "--push", registry.host)
    config = unpack(registry, "base", tmp_path / "image")["config"]
    assert isinstance(config, dict)
    env = dict(e.split("=", 1) for e in config["Env"])
    assert (config["User"], config["WorkingDir"], env["TIDEGATE_PROJECT"]) == ("65532:65532", "/app", "/app")
    assert env["PATH"] == "/opt/tidegate/bin:/usr/bin:/bin"
    assert "PYTHONPATH" not in env


def test_a_changed_component_changes_the_layer_of_the_source_alone(
    cli: Cli, registry: FakeRegistry, root: Path
) -> None:
    base = base_image(registry)
    cli("build", "--base", base, "--push", registry.host)
    before = {d for r, d in registry.blobs if r == "base"}
    assert "current" in cli("ls").stdout
    (root / "components" / "grade" / "marks.py").write_text("def mark(n: int) -> float:\n    return n / 3\n")
    assert "code differs" in cli("ls").stdout
    registry.asked.clear()
    done = cli("build", "--base", base, "--push", registry.host)
    assert "pushing source" in done.stderr
    assert "packages" not in done.stderr
    assert len({d for r, d in registry.blobs if r == "base"} - before) == 3  # the source, the configuration, the bill
    assert "current" in cli("ls").stdout


@pytest.mark.parametrize("subjects", [True, False])
def test_the_bill_of_materials_is_found_from_the_image(
    cli: Cli, registry: FakeRegistry, root: Path, subjects: bool
) -> None:
    registry.subjects = subjects
    for _ in range(2):
        digest = json.loads(cli("build", "--base", base_image(registry), "--push", registry.host, "--json").stdout)[
            "images"
        ][0]["digest"]
    bills = [json.loads(b) for _, b in registry.manifests.values() if b"artifactType" in b and b"subject" in b]
    assert {b["subject"]["digest"] for b in bills} == {digest}
    bill = json.loads(registry.blobs["base", bills[0]["layers"][0]["digest"]])
    purls = [c["purl"].partition("%2B")[0] for c in bill["components"]]
    assert purls == ["pkg:pypi/tidegate@0.1.0", "pkg:pypi/weights@1.0", "pkg:deb/debian/libc6@2.36-9?arch=amd64"]
    assert json.loads((root / "dist/images/base.cdx.json").read_text()) == bill
    listed = registry.manifests.get(("base", digest.replace(":", "-")))
    assert (listed is None) == subjects
    assert subjects or len(json.loads(listed[1])["manifests"]) == 1  # type: ignore[index]


def test_without_push_the_image_is_in_a_layout_and_the_lock_stays(cli: Cli, registry: FakeRegistry, root: Path) -> None:
    done = cli("build", "--base", base_image(registry), "--output", "out")
    assert done.returncode == 0, done.stderr
    assert "--push" in done.stdout
    entry = json.loads((root / "out" / "index.json").read_text())["manifests"][0]
    store = root / "out" / "blobs" / "sha256"
    manifest = json.loads((store / entry["digest"][7:]).read_text())
    for part in [manifest["config"], *manifest["layers"]]:
        data = (store / part["digest"][7:]).read_bytes()
        assert (sha256(data), len(data)) == (part["digest"], part["size"])
    assert not (root / "images.lock").exists()


def test_a_kept_layer_that_is_damaged_is_made_again(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path
) -> None:
    base = base_image(registry)
    first = json.loads(cli("build", "--base", base, "--json").stdout)["images"][0]
    for blob in (tmp_path / "cache" / "tidegate" / "images" / "blobs").iterdir():
        blob.unlink()
        blob.write_bytes(b"damaged")
    done = cli("build", "--base", base, "--push", registry.host, "--json")
    assert "installing" in done.stderr
    assert json.loads(done.stdout)["images"][0]["digest"] == first["digest"]


def test_a_file_of_another_hash_than_the_locks_is_refused(cli: Cli, registry: FakeRegistry, root: Path) -> None:
    (root / "images" / "base" / "requirements.txt").write_text("weights==1.0 --hash=" + DIGEST + "\n")
    done = cli("build", "--base", base_image(registry), "--push", registry.host)
    assert "error[hash-mismatch]" in done.stderr
    assert done.returncode == 1


def test_a_lock_without_hashes_is_refused(cli: Cli, registry: FakeRegistry, root: Path) -> None:
    (root / "images" / "base" / "requirements.txt").write_text("weights==1.0\n")
    done = cli("build", "--base", base_image(registry))
    assert "error[install-failed]" in done.stderr
    assert "hashes" in done.stderr


def test_a_component_that_needs_a_file_outside_the_image_is_refused(
    cli: Cli, registry: FakeRegistry, root: Path
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".gitignore").write_text("marks.py\n")
    done = cli("build", "--base", base_image(registry))
    assert "error[image-incomplete]" in done.stderr
    assert "components/grade/marks.py" in done.stderr
    assert done.returncode == 1


def test_secrets_caches_and_ignored_files_stay_out(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".gitignore").write_text("*.csv\n")
    for name in (".env", "data.csv", "__pycache__/x.pyc"):
        (root / "components" / name).parent.mkdir(exist_ok=True)
        (root / "components" / name).write_text("secret")
    cli("build", "--base", base_image(registry), "--push", registry.host)
    unpack(registry, "base", tmp_path / "image")
    found = {str(p.relative_to(tmp_path / "image/app")) for p in (tmp_path / "image" / "app").rglob("*") if p.is_file()}
    assert found == {"components/grade/component.py", "components/grade/marks.py", "pyproject.toml"}


def test_a_project_that_a_repository_around_it_ignores_is_not_empty(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("project/\n")
    cli("build", "--base", base_image(registry), "--push", registry.host)
    assert "components.grade.component:grade" in read_lock(root).families["base"].code


def test_a_flow_in_an_image_is_in_the_lock_with_what_stands_beside_it(
    cli: Cli, registry: FakeRegistry, root: Path
) -> None:
    (root / "components" / "flow.py").write_text(
        "from metaflow import FlowSpec\nimport beside\n\n\nclass F(FlowSpec):\n    pass\n"
    )
    (root / "components" / "beside.py").touch()
    cli("build", "--base", base_image(registry), "--push", registry.host)
    assert read_lock(root).families["base"].code["components/flow.py:F"] == closure("components/flow.py", root).digest


def test_a_link_out_of_the_project_is_refused(cli: Cli, registry: FakeRegistry, root: Path) -> None:
    (root / "components" / "out").symlink_to("../../../../etc/hostname")
    done = cli("build", "--base", base_image(registry))
    assert "error[image-outside]" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "exit_code"),
    [
        (("build",), "base-missing", 2),
        (("build", "../base", "--base", "x.example/y"), "family-name", 2),
        (("build", "train", "--base", "x.example/y"), "family-missing", 2),
        (("build", "--base", "NO/"), "image-name", 2),
        (("build", "--base", "localhost:1/python"), "registry-unreachable", 3),
        (("build", "--base", "HOST/none"), "image-missing", 2),
        (("build", "--base", "BASE", "--push", "team"), "image-name", 2),
        (("build", "--base", "BASE", "--push", "localhost:1"), "registry-unreachable", 3),
    ],
)
def test_what_is_wrong_is_said_with_a_code_and_never_a_traceback(
    cli: Cli, registry: FakeRegistry, root: Path, args: tuple[str, ...], code: str, exit_code: int
) -> None:
    base = base_image(registry)
    done = cli(*(base if a == "BASE" else a.replace("HOST", registry.host) for a in args))
    assert f"error[{code}]" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == exit_code
    assert not (root / "images.lock").exists()


@pytest.mark.parametrize(
    "text", ["shim = 1", "colour = 'red'", "env = {A = 1}", "files = ['../x']", "platform = 'x'", "x", "python = '2'"]
)
def test_a_setting_that_is_none_is_refused(cli: Cli, registry: FakeRegistry, root: Path, text: str) -> None:
    (root / "images" / "base" / "image.toml").write_text(text)
    done = cli("build", "--base", base_image(registry))
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr


def test_settings_of_the_project_and_of_the_family_count(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path
) -> None:
    setting = (
        f'[tool.tidegate.images-build]\nbase = "{base_image(registry)}"\nfiles = ["components", "pyproject.toml"]\n'
    )
    (root / "pyproject.toml").write_text(setting)
    (root / "images" / "base" / "image.toml").write_text('env = {MODE = "x=y"}\n')
    assert cli("build", "--push", registry.host).returncode == 0
    config = unpack(registry, "base", tmp_path / "image")["config"]
    assert "MODE=x=y" in config["Env"]  # type: ignore[index]


def test_a_lock_that_brings_tidegate_keeps_the_one_it_brings(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path
) -> None:
    _, digest = wheel(tmp_path / "wheels", "tidegate")
    (root / "images" / "base" / "requirements.txt").write_text(f"tidegate==1.0 --hash=sha256:{digest}\n")
    cli("build", "--base", base_image(registry), "--push", registry.host)
    unpack(registry, "base", tmp_path / "image")
    site = tmp_path / "image/opt/tidegate/lib/python3.11/site-packages"
    assert [p.name for p in site.glob("*.dist-info")] == ["tidegate-1.0.dist-info"]


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_the_shim_is_one_static_program_and_the_same_twice(tmp_path: Path) -> None:
    source = tmp_path / "shim.c"
    source.write_text("int main(void) { return 7; }\n")
    first, second = (shim.compiled("x86_64", source) for _ in range(2))
    assert first == second
    assert isinstance(first.content, bytes)
    (tmp_path / "shim").write_bytes(first.content)
    (tmp_path / "shim").chmod(0o755)
    assert subprocess.run([tmp_path / "shim"], env={}, check=False).returncode == 7
    offset, size, count = *struct.unpack_from("<Q", first.content, 32), *struct.unpack_from("<HH", first.content, 54)
    kinds = {struct.unpack_from("<I", first.content, offset + i * size)[0] for i in range(count)}
    assert kinds & {PT_LOAD, PT_INTERP} == {PT_LOAD}


def test_without_a_compiler_the_shim_is_said_to_need_one(
    cli: Cli, registry: FakeRegistry, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "images" / "base" / "image.toml").write_text("shim = true\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "uv").symlink_to(shutil.which("uv") or Path(sys.executable).with_name("uv"))
    monkeypatch.setenv("PATH", str(tools))
    done = cli("build", "--base", base_image(registry))
    assert "error[compiler-missing]" in done.stderr
    assert "gcc" in done.stderr
