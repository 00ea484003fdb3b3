"""``@tidegate.component`` is a real kfp component whose code comes from the image."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp import compiler, components, dsl

from tidegate.author.closure import closure
from tidegate.author.images import check_code, check_families, check_pinned, family_of, read_lock
from tidegate.author.step import main
from tidegate.author.testing import Artifact, run_component
from tidegate.errors import CodeMismatch, ConfigError, DefinitionError
from tidegate.ir.load import load

COMPONENT = """
import tidegate
from kfp.dsl import Dataset, Input, Output
from shop.prices import double

@tidegate.component(image="train")
def sell(n: int, stock: Input[Dataset], bill: Output[Dataset]) -> int:
    bill.metadata["n"] = n
    with open(bill.path, "w") as out, open(stock.path) as given:
        out.write(given.read() * n)
    return double(n)
"""
PIPELINE = """
from kfp import dsl
from shop.selling import sell

@dsl.pipeline(name="shop")
def shop(n: int = 1):
    sell(n=n, stock=dsl.importer(artifact_uri="x", artifact_class=dsl.Dataset).output)
"""


@pytest.fixture
def shop(tmp_path: Path) -> Any:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "prices.py").write_text("import numpy\n\ndef double(n):\n    return 2 * n\n")
    (tmp_path / "shop" / "selling.py").write_text(COMPONENT)
    (tmp_path / "shop_pipeline.py").write_text(PIPELINE)
    before, path = set(sys.modules), list(sys.path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("shop"):
            del sys.modules[name]
    sys.path[:] = path


def component(root: Path) -> Any:
    load(str(root / "shop_pipeline.py"))
    return sys.modules["shop.selling"].sell


def test_it_compiles_to_our_command_with_the_code_digest(shop: Path) -> None:
    spec = load(str(shop / "shop_pipeline.py")).spec
    container = spec["deploymentSpec"]["executors"]["exec-sell"]["container"]
    assert container["command"] == ["python", "-m", "tidegate.author.step"]
    assert container["image"] == "tidegate.invalid/train"
    assert container["args"][:4] == ["--executor_input", "{{$}}", "--function_to_execute", "shop.selling:sell"]
    assert container["args"][5] == closure("shop.selling", shop).digest


def test_kfp_compiles_it_and_loads_what_it_compiled(shop: Path, tmp_path: Path) -> None:
    compiler.Compiler().compile(component(shop), str(tmp_path / "sell.yaml"))
    loaded = components.load_component_from_text((tmp_path / "sell.yaml").read_text())
    assert sorted(loaded.component_spec.inputs) == ["n", "stock"]

    @dsl.pipeline(name="p")
    def p(n: int):
        stock = dsl.importer(artifact_uri="x", artifact_class=dsl.Dataset)
        loaded(n=n, stock=stock.output)

    assert "exec-sell" in json_format.MessageToDict(p.pipeline_spec)["deploymentSpec"]["executors"]


def test_a_component_is_tested_in_a_folder_with_real_artifacts(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "stock").write_text("ab")
    result = run_component(component(shop), tmp_path / "out", n=2, stock=Artifact(tmp_path / "stock", {"k": 1}))
    assert result.outputs == {"Output": 4}
    assert result.artifacts["bill"].path.read_text() == "abab"
    assert result.artifacts["bill"].metadata == {"n": 2}
    for wrong in ({"n": 1}, {"n": 1, "stock": tmp_path, "x": 1}):
        with pytest.raises(DefinitionError):
            run_component(component(shop), tmp_path / "out", **wrong)


def test_the_closure_holds_every_first_party_file_and_names_the_rest(shop: Path) -> None:
    found = closure("shop.selling", shop)
    assert found.files == ("shop/prices.py", "shop/selling.py")
    assert found.third_party == {"kfp", "numpy"}


@pytest.mark.parametrize(
    ("file", "text", "same"),
    [
        ("shop/prices.py", "def double(n):\n    return n + n\n", False),
        ("shop/selling.py", COMPONENT + "\n# a comment\n", False),
        ("shop/other.py", "x = 1\n", True),
        ("shop/README.md", "# read me\n", True),
        ("other.py", "x = 1\n", True),
    ],
)
def test_the_code_digest_changes_with_what_the_component_imports_and_nothing_else(
    shop: Path, file: str, text: str, same: bool
) -> None:
    before = closure("shop.selling", shop).digest
    (shop / file).write_text(text)
    assert (closure("shop.selling", shop).digest == before) is same


@pytest.mark.parametrize(
    "text",
    [
        "from . import prices", "from .prices import double", "from .deep.inner import z", "import shop.deep.inner",
        "def f():\n    from shop.deep import inner", "from shop.deep import inner as i",
    ],
)  # fmt: skip
def test_every_way_to_import_is_followed(shop: Path, text: str) -> None:
    (shop / "shop" / "deep").mkdir()
    (shop / "shop" / "deep" / "__init__.py").write_text("")
    (shop / "shop" / "deep" / "inner.py").write_text("from ..prices import double as z\n")
    (shop / "shop" / "user.py").write_text(text + "\n")
    assert "shop/prices.py" in closure("shop.user", shop).files


def test_a_data_file_that_the_code_names_counts(shop: Path) -> None:
    (shop / "shop" / "user.py").write_text('open("rates.json")\n')
    (shop / "shop" / "rates.json").write_text("1")
    before = closure("shop.user", shop)
    assert "shop/rates.json" in before.files
    (shop / "shop" / "rates.json").write_text("2")
    assert closure("shop.user", shop).digest != before.digest


def test_a_script_finds_what_stands_beside_it_first_and_then_what_the_project_has(shop: Path) -> None:
    (shop / "jobs").mkdir()
    (shop / "jobs" / "report.py").write_text(
        "import prices, layout\nfrom shop.prices import double\nopen('rates.json')\n"
    )
    for name in ("jobs/prices.py", "jobs/layout.py", "jobs/rates.json", "layout.py"):
        (shop / name).write_text("1")
    found = closure("jobs/report.py", shop)
    assert found.files == ("jobs/layout.py", "jobs/prices.py", "jobs/rates.json", "jobs/report.py", "shop/prices.py")
    assert found.third_party == {"numpy"}
    (shop / "jobs" / "prices.py").write_text("2")
    assert closure("jobs/report.py", shop).digest != found.digest
    assert closure("../jobs/report.py", shop / "shop").files == ()


def test_the_digest_does_not_know_where_the_project_stands(shop: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(shop / "shop", tmp_path / "elsewhere" / "shop")
    assert closure("shop.selling", tmp_path / "elsewhere").digest == closure("shop.selling", shop).digest


def test_string_annotations_are_refused_with_the_line_to_remove(shop: Path) -> None:
    (shop / "shop" / "selling.py").write_text("from __future__ import annotations\n" + COMPONENT)
    with pytest.raises(DefinitionError, match="annotations of component 'sell' are strings") as e:
        component(shop)
    assert "from __future__ import annotations" in e.value.hint


def test_a_nested_component_is_refused(shop: Path) -> None:
    (shop / "shop" / "selling.py").write_text(
        "import tidegate\ndef f():\n    @tidegate.component\n    def g(n: int) -> int:\n        return n\n    return g\nsell = f()\n"
    )
    with pytest.raises(DefinitionError) as e:
        component(shop)
    assert e.value.code == "component-nested"


def test_a_step_reads_its_input_from_argv_a_file_or_the_environment(shop: Path, tmp_path: Path) -> None:
    import json

    (tmp_path / "stock").write_text("ab")
    output = {
        "outputFile": str(tmp_path / "o" / "out.json"),
        "artifacts": {"bill": {"artifacts": [{"name": "bill", "uri": str(tmp_path / "bill")}]}},
    }
    stock = {"artifacts": [{"name": "stock", "uri": str(tmp_path / "stock")}]}
    said = json.dumps({"inputs": {"parameterValues": {"n": 3}, "artifacts": {"stock": stock}}, "outputs": output})
    (tmp_path / "input.json").write_text(said)
    env = {**os.environ, "PYTHONPATH": str(shop)}
    for flags, extra in (
        (["--executor_input", said], {}),
        (["--executor_input", f"@{tmp_path / 'input.json'}"], {}),
        ([], {"TIDEGATE_EXECUTOR_INPUT": said}),
    ):
        (tmp_path / "bill").unlink(missing_ok=True)
        command = [sys.executable, "-m", "tidegate.author.step", *flags, "--function_to_execute", "shop.selling:sell"]
        digest = ["--code_digest", closure("shop.selling", shop).digest]
        subprocess.run([*command, *digest], cwd=shop, env={**env, **extra}, check=True)
        assert (tmp_path / "bill").read_text() == "ababab"
        assert json.loads((tmp_path / "o" / "out.json").read_text())["parameterValues"] == {"Output": 6}


def test_a_step_refuses_other_code_before_it_imports_any(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (shop / "shop" / "selling.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(shop)
    monkeypatch.setenv("_KFP_RUNTIME", "true")
    said = '{"outputs": {"outputFile": "%s"}}' % (tmp_path / "o" / "out.json")
    digest = "sha256:" + "0" * 64
    assert main(["--executor_input", said, "--function_to_execute", "shop.selling:sell", "--code_digest", digest]) == 1
    assert "CodeMismatch" in capsys.readouterr().err
    assert "code-mismatch" in (tmp_path / "o" / "error.json").read_text()


LOCK = """version = 1
[family.train]
image = "registry.example/train@sha256:{d}"
[family.train.code]
"shop.selling:sell" = "{code}"
"""


def test_the_lock_gives_the_image_by_digest_and_its_code_is_checked(shop: Path) -> None:
    digest = closure("shop.selling", shop).digest
    (shop / "images.lock").write_text(LOCK.format(d="1" * 64, code=digest))
    image = load(str(shop / "shop_pipeline.py")).spec["deploymentSpec"]["executors"]["exec-sell"]["container"]["image"]
    assert image == "registry.example/train@sha256:" + "1" * 64
    check_pinned(image)
    check_code(read_lock(shop), image, "shop.selling:sell", digest)
    with pytest.raises(CodeMismatch, match="shop.selling:sell") as refused:
        check_code(read_lock(shop), image, "shop.selling:sell", "sha256:" + "2" * 64)
    assert refused.value.hint == "tidegate images build train --push REGISTRY"
    with pytest.raises(CodeMismatch, match="holds none") as refused:
        check_code(read_lock(shop), image, "steps.new:sell", "sha256:" + "2" * 64)
    assert "'steps' goes into files of [tool.tidegate.images-build]" in refused.value.hint


@pytest.mark.parametrize("image", ["tidegate.invalid/train", "python:3.11", "registry.example/train:latest"])
def test_an_image_without_a_digest_is_refused_for_a_cluster(image: str) -> None:
    with pytest.raises(DefinitionError) as e:
        check_pinned(image)
    assert e.value.code == "image-mutable"


def test_families_without_an_image_are_named_at_once_with_what_to_type(tmp_path: Path) -> None:
    wanted = [family_of(read_lock(tmp_path).image(n)) for n in ("sea", "train", "python:3.11")]
    with pytest.raises(DefinitionError, match="these families: base, sea, train") as refused:
        check_families(wanted, tmp_path, "base")
    copies = "; ".join(f"cp -r TIDEGATE/images/base images/{n}" for n in ("base", "sea", "train"))
    assert refused.value.hint.startswith(f"mkdir -p images; {copies} ")
    assert refused.value.hint.endswith("tidegate images build base sea train --push REGISTRY")
    assert "image = … in [tool.tidegate.argo]" in refused.value.allowed
    for name in ("base", "sea", "train"):
        (tmp_path / "images" / name).mkdir(parents=True)
    with pytest.raises(DefinitionError, match="these families: sea, train") as refused:
        check_families(wanted, tmp_path)
    assert refused.value.hint == "tidegate images build sea train --push REGISTRY"
    assert "launcher" not in refused.value.allowed
    check_families(["", family_of("python:3.11")], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "version = 2\n",
        "x",
        LOCK.format(d="1" * 3, code="x"),
        'version = 1\nfamily = "x"\n',
        'version = 1\n[family.a]\nenvironment = "x"\n',
    ],
)
def test_a_lock_with_a_mistake_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.lock").write_text(text)
    with pytest.raises(ConfigError):
        read_lock(tmp_path)
