"""The rules that a compiled object must satisfy: each refuses what it is for, and nothing that we compile."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from kfp import dsl

from tests.language.kit import add, say
from tidegate.engines.argo.check import MAX_SPEC, check
from tidegate.engines.argo.packed import Packed
from tidegate.engines.argo.settings import ArgoSettings
from tidegate.engines.argo.workflow import workflow
from tidegate.errors import DefinitionError
from tidegate.ir.load import of_pipeline


@dsl.pipeline(name="p")
def p(x: int = 1):
    made = add(a=x, b=1)
    with dsl.If(made.output > 1):
        say(text="more")


def compiled() -> dict[str, Any]:
    found = of_pipeline(p, "")
    return workflow("p", Packed(found.spec, found.platforms or {}), ArgoSettings(image="ours"))


def tasks(body: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = body["spec"]["templates"][0]["dag"]["tasks"]
    return found


def by_name(body: dict[str, Any], name: str) -> dict[str, Any]:
    return next(t for t in tasks(body) if t["name"] == name)


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a field that Argo does not know": (lambda b: b["spec"].update(parralelism=3), "no field .spec.parralelism"),
    "a name too long": (lambda b: b["metadata"].update(name="p" * 64), "63 characters at most"),
    "a name in capitals": (lambda b: b["metadata"].update(name="P"), "is not one of a-z"),
    "one name twice": (lambda b: b["spec"]["templates"].append(b["spec"]["templates"][1]), "two templates"),
    "a task that begins with a digit": (lambda b: by_name(b, "add").update(name="1add"), "is no name of a task"),
    "a template that is not there": (lambda b: by_name(b, "add").update(template="sub"), "no template sub"),
    "an argument too many": (
        lambda b: by_name(b, "add")["arguments"]["parameters"].append({"name": "z", "value": "1"}),
        "gives ['step', 'z']",
    ),
    "an input that is not declared": (
        lambda b: by_name(b, "add").update(when="{{=inputs.parameters['y'] == ''}}"),
        "reads the input y",
    ),
    "a task that is read and not waited for": (
        lambda b: by_name(b, "add").update(when="{{=tasks['condition-1'].status == ''}}"),
        "does not wait for the task condition-1",
    ),
    "a circle": (lambda b: by_name(b, "add").update(depends="condition-1.Succeeded"), "waits for itself"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_argo_would_refuse_or_misread_is_refused(name: str) -> None:
    body = copy.deepcopy(compiled())
    check(body)
    breaks, said = BROKEN[name]
    breaks(body)
    with pytest.raises(DefinitionError) as refused:
        check(body)
    assert refused.value.code == "argo-invalid"
    assert said in refused.value.found


def test_what_is_too_large_is_refused_with_its_size() -> None:
    body = compiled()
    body["metadata"]["annotations"] = {"x": "y" * MAX_SPEC}
    with pytest.raises(DefinitionError, match="takes 9[0-9][0-9] KiB") as refused:
        check(body)
    assert refused.value.code == "argo-too-large"
