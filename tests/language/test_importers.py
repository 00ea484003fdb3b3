"""dsl.importer of what is on this machine, by content and metadata."""

from pathlib import Path

import pytest
from kfp import dsl

from tests.language.kit import FAILED, SKIPPED, Runner, component, outputs, read, say


@component
def look(data: dsl.Input[dsl.Dataset]) -> str:
    import json

    return open(data.path).read() + json.dumps(data.metadata, sort_keys=True)


@component
def names(model: dsl.Input[dsl.Model]) -> list:
    import os

    return sorted(os.listdir(model.path))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "some data.txt"
    file.write_text("content ")
    return file


@pytest.mark.parametrize("form", ["path", "file-uri"])
def test_a_constant_address_with_metadata(run: Runner, data: Path, form: str) -> None:
    address = str(data) if form == "path" else data.as_uri()
    out = outputs(data=dsl.Dataset, said=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        found = dsl.importer(
            artifact_uri=address, artifact_class=dsl.Dataset, metadata={"n": 1, "deep": {"xs": [1, 2]}}
        )
        return out(data=found.output, said=look(data=found.output).output)

    ran = run(p)
    assert ran.values == {"said": 'content {"deep": {"xs": [1, 2]}, "n": 1}'}
    assert ran.text("data") == "content "
    assert ran.artifacts["data"][0].type.partition("@")[0] == "system.Dataset"


def test_an_address_given_to_the_run(run: Runner, data: Path) -> None:
    @dsl.pipeline(name="p")
    def p(address: str) -> str:
        return read(data=dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset).output).output

    assert run(p, address=str(data)).value == "content "
    assert run(p, address=data.as_uri()).value == "content "


def test_an_address_that_a_task_made(run: Runner, data: Path) -> None:
    @dsl.pipeline(name="p")
    def p(folder: str) -> str:
        address = say(text=f"{folder}/some data.txt")
        found = dsl.importer(artifact_uri=address.output, artifact_class=dsl.Dataset, reimport=True)
        return read(data=found.output).output

    assert run(p, folder=str(data.parent)).value == "content "


def test_metadata_from_parameters_and_outputs(run: Runner, data: Path) -> None:
    address = str(data)

    @dsl.pipeline(name="p")
    def p(label: str) -> str:
        by = say(text="somebody")
        found = dsl.importer(
            artifact_uri=address,
            artifact_class=dsl.Dataset,
            metadata={"label": label, "by": by.output, "both": [label, by.output], "in": {"deep": label}},
        )
        return look(data=found.output).output

    wanted = '{"both": ["x", "somebody"], "by": "somebody", "in": {"deep": "x"}, "label": "x"}'
    assert run(p, label="x").value == "content " + wanted


def test_a_metadata_key_from_an_output(run: Runner, data: Path) -> None:
    address = str(data)

    @dsl.pipeline(name="p")
    def p() -> str:
        key = say(text="owner")
        metadata = {key.output: "me"}
        return look(
            data=dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset, metadata=metadata).output
        ).output

    assert run(p).value == 'content {"owner": "me"}'


def test_a_folder(run: Runner, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "b").write_text("2")

    @dsl.pipeline(name="p")
    def p(address: str) -> list:
        return names(model=dsl.importer(artifact_uri=address, artifact_class=dsl.Model).output).output

    assert run(p, address=str(folder)).value == ["a", "b"]


def test_one_import_per_iteration_of_a_loop(run: Runner, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name.upper())

    @dsl.pipeline(name="p")
    def p(addresses: list[str]) -> list:
        with dsl.ParallelFor(addresses) as address:
            each = read(data=dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset).output)
        return dsl.Collected(each.output)

    assert run(p, addresses=[str(tmp_path / "b"), str(tmp_path / "a")]).value == ["B", "A"]


def test_an_import_under_a_condition_and_in_a_nested_pipeline(run: Runner, data: Path) -> None:
    @dsl.pipeline(name="fetch")
    def fetch(address: str) -> dsl.Dataset:
        return dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset).output

    @dsl.pipeline(name="p")
    def p(address: str, on: bool):
        with dsl.If(on == True):  # noqa: E712
            read(data=fetch(address=address).output)

    assert set(run(p, address=str(data), on=True).steps.values()) == {"SUCCEEDED"}
    assert set(run(p, address="nowhere", on=False).steps.values()) == {SKIPPED}


def test_nothing_at_the_address_fails_the_run_and_says_which(run: Runner, tmp_path: Path) -> None:
    @dsl.pipeline(name="p")
    def p(address: str):
        read(data=dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset).output)

    ran = run(p, address=str(tmp_path / "absent.csv"))
    assert (ran.state, ran.steps) == (FAILED, {"importer": FAILED, "read": SKIPPED})
    assert "absent.csv" in ran.error["message"]


def test_an_address_elsewhere_is_handed_on_without_being_fetched(run: Runner) -> None:
    @component
    def address(data: dsl.Input[dsl.Dataset]) -> str:
        return data.uri

    @dsl.pipeline(name="p")
    def p() -> str:
        found = dsl.importer(artifact_uri="https://example.invalid/data.csv", artifact_class=dsl.Dataset)
        return address(data=found.output).output

    assert run(p).value == "https://example.invalid/data.csv"


def test_the_file_is_read_anew_by_the_next_run_even_with_the_cache(run: Runner, data: Path) -> None:
    @dsl.pipeline(name="p")
    def p(address: str) -> str:
        return read(data=dsl.importer(artifact_uri=address, artifact_class=dsl.Dataset, reimport=False).output).output

    assert run(p, cache=True, address=str(data)).value == "content "
    data.write_text("changed")
    assert run(p, cache=True, address=str(data)).value == "changed"
