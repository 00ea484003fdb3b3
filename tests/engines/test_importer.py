"""dsl.importer: local files and objects by content, with metadata; reimport."""

import os
import secrets
from pathlib import Path
from urllib.parse import quote

import pytest
from kfp import dsl

from tests.engines.project import Project
from tests.servers import create_bucket, free_port, moto


@pytest.fixture(scope="module")
def s3():
    with moto(free_port()) as url:
        yield url


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def look(data: dsl.Input[dsl.Dataset]) -> dict:
    import os

    found = (
        [data.path]
        if os.path.isfile(data.path)
        else [os.path.join(d, f) for d, _, fs in os.walk(data.path) for f in fs]
    )
    texts = {os.path.relpath(f, data.path): open(f).read() for f in found}
    return {"texts": texts, "metadata": data.metadata, "name": os.path.basename(data.path)}


@dsl.pipeline(name="imports")
def imports(uri: str, reimport: str = "no") -> dict:
    imported = dsl.importer(
        artifact_uri=uri, artifact_class=dsl.Dataset, metadata={"from": "here", "reimport": reimport}
    )
    return look(data=imported.output).output


def test_a_file_a_folder_and_a_file_address_are_imported_with_metadata(project: Project) -> None:
    project.write("data/a b.txt", "one")
    project.write("data/deep/c.txt", "two")
    for uri in (
        "data/a b.txt",
        str(project.root / "data/a b.txt"),
        f"file://{quote(str(project.root / 'data/a b.txt'))}",
    ):
        found = project.run_traced(imports, uri=uri).parameters["Output"]
        assert (found["texts"], found["name"]) == ({".": "one"}, "a b.txt")
        assert found["metadata"] == {"from": "here", "reimport": "no"}
    folder = project.run_traced(imports, uri="data").parameters["Output"]
    assert folder["texts"] == {"a b.txt": "one", "deep/c.txt": "two"}


def test_a_changed_file_is_never_served_from_an_earlier_import(project: Project) -> None:
    project.write("data.txt", "one")
    project.run_traced(imports, uri="data.txt")
    project.write("data.txt", "two")
    assert project.run_traced(imports, uri="data.txt").parameters["Output"]["texts"] == {".": "two"}


def test_nothing_there_fails_the_step_and_says_so(project: Project) -> None:
    error = project.run_traced(imports, uri="absent.txt").error
    assert error
    assert error["code"] == "import-missing"


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch):
    name = f"data-{secrets.token_hex(4)}"
    create_bucket(s3, name)
    for key, value in {
        "AWS_ENDPOINT_URL": s3, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    return name


def put(bucket: str, key: str, text: str) -> None:
    import obstore
    from obstore.store import from_url

    obstore.put(from_url(f"s3://{bucket}", client_options={"allow_http": True}), key, text.encode())


def test_an_object_and_a_folder_of_objects_are_imported_by_content(project: Project, bucket: str) -> None:
    put(bucket, "data/rows.csv", "1,2")
    put(bucket, "data/more/rows.csv", "3,4")
    one = project.run_traced(imports, uri=f"s3://{bucket}/data/rows.csv").parameters["Output"]
    assert (one["texts"], one["name"]) == ({".": "1,2"}, "rows.csv")
    both = project.run_traced(imports, uri=f"s3://{bucket}/data").parameters["Output"]
    assert both["texts"] == {"rows.csv": "1,2", "more/rows.csv": "3,4"}


def test_a_changed_object_is_imported_again_and_an_unchanged_one_is_not_fetched(project: Project, bucket: str) -> None:
    uri = f"s3://{bucket}/rows.csv"
    put(bucket, "rows.csv", "1,2")
    project.run_traced(imports, uri=uri)
    entries = sorted(os.listdir(project.root / ".tidegate/cache"))
    project.run_traced(imports, uri=uri)
    assert sorted(os.listdir(project.root / ".tidegate/cache")) == entries
    put(bucket, "rows.csv", "3,4")
    assert project.run_traced(imports, uri=uri).parameters["Output"]["texts"] == {".": "3,4"}


def test_an_object_that_is_not_there_or_not_reachable_fails_the_step(
    project: Project, bucket: str, monkeypatch
) -> None:
    error = project.run_traced(imports, uri=f"s3://{bucket}/absent").error
    assert error
    assert error["code"] == "import-missing"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    error = project.run_traced(imports, uri=f"s3://{bucket}/rows.csv").error
    assert error
    assert error["code"] == "import-unreachable"


def test_an_address_of_another_kind_is_kept_as_it_is(project: Project) -> None:
    @dsl.component(base_image="python:3.11", install_kfp_package=False)
    def address(data: dsl.Input[dsl.Artifact]) -> str:
        return data.uri

    @dsl.pipeline(name="elsewhere")
    def elsewhere() -> str:
        found = dsl.importer(artifact_uri="models:/m@champion", artifact_class=dsl.Artifact)
        return address(data=found.output).output

    assert project.run_traced(elsewhere).parameters == {"Output": "models:/m@champion"}
