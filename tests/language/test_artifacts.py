"""Artifacts of every kind, by content and metadata."""

from pathlib import Path
from typing import NamedTuple

import pytest
from kfp import dsl

from tests.language.kit import FAILED, SUCCEEDED, Runner, component, outputs, read, write


@component
def metrics(out: dsl.Output[dsl.Metrics]):
    out.log_metric("accuracy", 0.75)
    out.log_metric("rows", 12)
    out.metadata["note"] = "é"


@component
def read_metrics(data: dsl.Input[dsl.Metrics]) -> float:
    return data.metadata["accuracy"] * data.metadata["rows"]


@component
def classified(out: dsl.Output[dsl.ClassificationMetrics]):
    out.log_roc_curve([0.0, 0.5, 1.0], [0.0, 0.8, 1.0], [1.0, 0.5, 0.1])
    out.log_confusion_matrix(["cat", "dog"], [[9, 1], [2, 8]])


@component
def pages(html: dsl.Output[dsl.HTML], text: dsl.Output[dsl.Markdown]):
    with open(html.path, "w") as f:
        f.write("<b>hi</b>")
    with open(text.path, "w") as f:
        f.write("# hi")


@component
def tree(out: dsl.Output[dsl.Model]):
    import os

    os.makedirs(os.path.join(out.path, "sub", "empty"))
    for name, text in (("a.txt", "A"), ("sub/b.txt", "B")):
        with open(os.path.join(out.path, name), "w") as f:
            f.write(text)


@component
def walk(model: dsl.Input[dsl.Model]) -> list:
    import os

    found = []
    for folder, _, names in os.walk(model.path):
        for name in names:
            path = os.path.join(folder, name)
            with open(path) as f:
                found.append(f"{os.path.relpath(path, model.path)}={f.read()}")
    return sorted(found)


@component
def described(out: dsl.Output[dsl.Dataset]):
    with open(out.path, "w") as f:
        f.write("x")
    out.metadata.update({"rows": 3, "ratio": 0.5, "ok": True, "names": ["a", "b"], "nested": {"n": 1, "xs": [1, 2]}})


@component
def describe(data: dsl.Input[dsl.Dataset]) -> str:
    import json

    return json.dumps(data.metadata, sort_keys=True)


@component
def made(text: str) -> dsl.Dataset:
    out = dsl.Dataset(uri=dsl.get_uri(), metadata={"length": len(text)})
    with open(out.path, "w") as f:
        f.write(text)
    return out


@component
def two_made(text: str) -> NamedTuple("Two", [("data", dsl.Dataset), ("model", dsl.Model), ("n", int)]):
    data = dsl.Dataset(uri=dsl.get_uri(suffix="data"), metadata={"which": "data"})
    model = dsl.Model(uri=dsl.get_uri(suffix="model"), metadata={"which": "model"})
    for artifact in (data, model):
        with open(artifact.path, "w") as f:
            f.write(f"{text} {artifact.metadata['which']}")
    return data, model, 7


@component
def kind(thing: dsl.Input[dsl.Artifact]) -> str:
    return f"{type(thing).__name__} {thing.schema_title}"


def test_metrics_live_in_metadata_and_reach_later_tasks(run: Runner) -> None:
    out = outputs(metrics=dsl.Metrics, product=float)

    @dsl.pipeline(name="p")
    def p() -> out:
        logged = metrics()
        return out(metrics=logged.output, product=read_metrics(data=logged.output).output)

    ran = run(p)
    (artifact,) = ran.artifacts["metrics"]
    assert dict(artifact.metadata) == {"accuracy": 0.75, "rows": 12, "note": "é"}
    assert artifact.type.startswith("system.Metrics")
    assert ran.values == {"product": 9.0}


def test_classification_metrics_keep_curve_and_matrix(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> dsl.ClassificationMetrics:
        return classified().output

    (artifact,) = run(p).artifacts["Output"]
    points = artifact.metadata["confidenceMetrics"]
    matrix = artifact.metadata["confusionMatrix"]
    assert [(c["falsePositiveRate"], c["recall"], c["confidenceThreshold"]) for c in points] == [
        (0.0, 0.0, 1.0),
        (0.5, 0.8, 0.5),
        (1.0, 1.0, 0.1),
    ]
    assert [row["row"] for row in matrix["rows"]] == [[9, 1], [2, 8]]
    assert [a["displayName"] for a in matrix["annotationSpecs"]] == ["cat", "dog"]


def test_html_and_markdown_keep_their_bytes_and_types(run: Runner) -> None:
    out = outputs(html=dsl.HTML, text=dsl.Markdown)

    @dsl.pipeline(name="p")
    def p() -> out:
        done = pages()
        return out(html=done.outputs["html"], text=done.outputs["text"])

    ran = run(p)
    assert (ran.text("html"), ran.text("text")) == ("<b>hi</b>", "# hi")
    types = {name: found[0].type.partition("@")[0] for name, found in ran.artifacts.items()}
    assert types == {"html": "system.HTML", "text": "system.Markdown"}


def test_a_folder_is_an_artifact_with_everything_in_it(run: Runner) -> None:
    out = outputs(model=dsl.Model, found=list)

    @dsl.pipeline(name="p")
    def p() -> out:
        model = tree().output
        return out(model=model, found=walk(model=model).output)

    ran = run(p)
    assert ran.values == {"found": ["a.txt=A", "sub/b.txt=B"]}
    folder = ran.path(ran.artifacts["model"][0])
    assert (folder / "sub" / "b.txt").read_text() == "B"


def test_metadata_of_every_json_type_arrives_with_its_type(run: Runner) -> None:
    out = outputs(data=dsl.Dataset, seen=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        data = described().output
        return out(data=data, seen=describe(data=data).output)

    import json

    ran = run(p)
    wanted = {"rows": 3, "ratio": 0.5, "ok": True, "names": ["a", "b"], "nested": {"n": 1, "xs": [1, 2]}}
    assert dict(ran.artifacts["data"][0].metadata) == wanted
    assert ran.values == {"seen": json.dumps(wanted, sort_keys=True)}


def test_metadata_stays_with_the_artifact_it_was_written_on(run: Runner) -> None:
    @component
    def relabel(data: dsl.Input[dsl.Dataset], out: dsl.Output[dsl.Dataset]):
        out.metadata["parent_rows"] = data.metadata["rows"]
        data.metadata["rows"] = -1
        with open(out.path, "w") as f:
            f.write("y")

    out = outputs(first=str, second=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        data = described().output
        new = relabel(data=data).outputs["out"]
        return out(first=describe(data=data).after(new.task).output, second=describe(data=new).output)

    ran = run(p)
    assert '"rows": 3' in ran.values["first"]
    assert ran.values["second"] == '{"parent_rows": 3}'


def test_a_returned_artifact_is_the_output(run: Runner) -> None:
    out = outputs(data=dsl.Dataset, said=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        data = made(text="four").output
        return out(data=data, said=read(data=data).output)

    ran = run(p)
    assert (ran.text("data"), ran.values) == ("four", {"said": "four"})
    assert dict(ran.artifacts["data"][0].metadata) == {"length": 4}


def test_a_named_tuple_mixes_returned_artifacts_and_parameters(run: Runner) -> None:
    out = outputs(data=dsl.Dataset, model=dsl.Model, n=int)

    @dsl.pipeline(name="p")
    def p() -> out:
        done = two_made(text="the")
        return out(data=done.outputs["data"], model=done.outputs["model"], n=done.outputs["n"])

    ran = run(p)
    assert (ran.text("data"), ran.text("model"), ran.values) == ("the data", "the model", {"n": 7})
    assert {n: a[0].type.partition("@")[0] for n, a in ran.artifacts.items()} == {
        "data": "system.Dataset",
        "model": "system.Model",
    }


def test_returned_artifacts_written_by_hand_next_to_output_annotations(run: Runner) -> None:
    @component
    def both(side: dsl.Output[dsl.Dataset]) -> NamedTuple("B", [("n", int), ("text", str)]):
        with open(side.path, "w") as f:
            f.write("side")
        return 3, "t"

    out = outputs(side=dsl.Dataset, n=int, text=str)

    @dsl.pipeline(name="p")
    def p() -> out:
        done = both()
        return out(side=done.outputs["side"], n=done.outputs["n"], text=done.outputs["text"])

    ran = run(p)
    assert (ran.text("side"), ran.values) == ("side", {"n": 3, "text": "t"})


def test_an_artifact_passed_on_as_the_general_type_keeps_its_own(run: Runner) -> None:
    @dsl.pipeline(name="p")
    def p() -> str:
        return kind(thing=tree().output).output

    assert run(p).value == "Model system.Model"


def test_a_custom_path_is_read_back_by_the_consumer_and_kept(run: Runner, tmp_path: Path) -> None:
    @component
    def elsewhere(folder: str, out: dsl.Output[dsl.Dataset]):
        import os

        os.makedirs(folder)
        out.set_path(os.path.join(folder, "mine.txt"))
        with open(out.path, "w") as f:
            f.write("kept elsewhere")

    out_ = outputs(data=dsl.Dataset, said=str)

    @dsl.pipeline(name="p")
    def p(folder: str) -> out_:
        data = elsewhere(folder=folder).outputs["out"]
        return out_(data=data, said=read(data=data).output)

    ran = run(p, folder=str(tmp_path / "custom"))
    assert ran.values == {"said": "kept elsewhere"}
    assert ran.text("data") == "kept elsewhere"


def test_a_uri_set_by_hand_below_the_task_root_is_kept(run: Runner) -> None:
    @component
    def renamed(out: dsl.Output[dsl.Dataset]):
        out.uri = out.uri + ".csv"
        with open(out.path, "w") as f:
            f.write("a,b")

    @dsl.pipeline(name="p")
    def p() -> str:
        return read(data=renamed().outputs["out"]).output

    assert run(p).value == "a,b"


def test_input_path_and_output_path_of_artifacts(run: Runner) -> None:
    @component
    def first(out: dsl.OutputPath("Dataset")):
        with open(out, "w") as f:
            f.write("by path")

    @component
    def second(data: dsl.InputPath("Dataset")) -> str:
        with open(data) as f:
            return f.read()

    @dsl.pipeline(name="p")
    def p() -> str:
        return second(data=first().output).output

    assert run(p).value == "by path"


def test_binary_and_empty_files_are_kept_byte_for_byte(run: Runner) -> None:
    @component
    def bytes_(out: dsl.Output[dsl.Artifact], empty: dsl.Output[dsl.Artifact]):
        with open(out.path, "wb") as f:
            f.write(bytes(range(256)) * 100)
        open(empty.path, "w").close()

    out = outputs(out=dsl.Artifact, empty=dsl.Artifact)

    @dsl.pipeline(name="p")
    def p() -> out:
        done = bytes_()
        return out(out=done.outputs["out"], empty=done.outputs["empty"])

    ran = run(p)
    assert ran.path(ran.artifacts["out"][0]).read_bytes() == bytes(range(256)) * 100
    assert ran.text("empty") == ""


def test_an_artifact_that_was_never_written_is_only_metadata(run: Runner) -> None:
    @component
    def forgets(out: dsl.Output[dsl.Dataset]):
        out.metadata["planned"] = True

    @dsl.pipeline(name="p")
    def p() -> dsl.Dataset:
        return forgets().outputs["out"]

    ran = run(p)
    (artifact,) = ran.artifacts["Output"]
    assert (ran.state, dict(artifact.metadata), artifact.digest) == (SUCCEEDED, {"planned": True}, "")


def test_reading_a_file_that_was_never_written_fails_the_reader(run: Runner) -> None:
    @component
    def forgets(out: dsl.Output[dsl.Dataset]):
        pass

    @dsl.pipeline(name="p")
    def p():
        read(data=forgets().outputs["out"])

    ran = run(p)
    assert (ran.state, ran.error["step"]) == (FAILED, "read")


def test_a_consumer_cannot_change_what_another_consumer_reads(run: Runner) -> None:
    @component
    def spoil(data: dsl.Input[dsl.Dataset]):
        import os

        os.chmod(data.path, 0o644)
        with open(data.path, "w") as f:
            f.write("spoiled")

    @dsl.pipeline(name="p")
    def p() -> str:
        data = write(text="clean").outputs["out"]
        return read(data=data).after(spoil(data=data)).output

    assert run(p).value == "clean"


@pytest.mark.parametrize("n", [1, 3])
def test_a_list_of_artifacts_at_the_root_keeps_order_type_and_metadata(run: Runner, n: int) -> None:
    @dsl.pipeline(name="p")
    def p(texts: list[str]) -> list[dsl.Dataset]:
        with dsl.ParallelFor(texts) as text:
            each = made(text=text)
        return dsl.Collected(each.output)

    texts = ["a", "bb", "ccc"][:n]
    ran = run(p, texts=texts)
    assert ran.texts("Output") == texts
    assert [dict(a.metadata) for a in ran.artifacts["Output"]] == [{"length": len(t)} for t in texts]
