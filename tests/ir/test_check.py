"""The verifier: each rule has a code, and each is broken here."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tidegate.errors import DefinitionError
from tidegate.ir.check import RULES, check


def spec() -> dict[str, Any]:
    return {
        "pipelineInfo": {"name": "p"},
        "schemaVersion": "2.1.0",
        "components": {
            "comp-a": {
                "executorLabel": "exec-a",
                "inputDefinitions": {"parameters": {"x": {"parameterType": "STRING"}}},
                "outputDefinitions": {"parameters": {"y": {"parameterType": "STRING"}}},
            }
        },
        "deploymentSpec": {"executors": {"exec-a": {"container": {"image": "i", "command": ["c"]}}}},
        "root": {
            "dag": {
                "tasks": {
                    "a": {
                        "componentRef": {"name": "comp-a"},
                        "inputs": {"parameters": {"x": {"componentInputParameter": "n"}}},
                    },
                    "b": {
                        "componentRef": {"name": "comp-a"},
                        "inputs": {
                            "parameters": {
                                "x": {"taskOutputParameter": {"producerTask": "a", "outputParameterKey": "y"}}
                            }
                        },
                    },
                },
                "outputs": {
                    "parameters": {"y": {"valueFromParameter": {"producerSubtask": "b", "outputParameterKey": "y"}}}
                },
            },
            "inputDefinitions": {"parameters": {"n": {"parameterType": "STRING"}}},
            "outputDefinitions": {"parameters": {"y": {"parameterType": "STRING"}}},
        },
    }


def test_a_legal_spec_passes() -> None:
    check(spec())


def tasks(s: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = s["root"]["dag"]["tasks"]
    return found


BROKEN: dict[str, Callable[[dict[str, Any]], object]] = {
    "ir-incomplete": lambda s: s.pop("root"),
    "ir-version": lambda s: s.update(schemaVersion="1.0"),
    "ir-body": lambda s: s["components"]["comp-a"].update(executorLabel="none"),
    "ir-executor-kind": lambda s: s["deploymentSpec"]["executors"].update({"exec-a": {"resolver": {}}}),
    "ir-name": lambda s: s["components"]["comp-a"]["outputDefinitions"]["parameters"].update(
        {"../x": {"parameterType": "STRING"}}
    ),
    "ir-executor": lambda s: s["deploymentSpec"]["executors"].update(
        {"exec-b": {"container": {"env": [{"value": "x"}]}}}
    ),
    "ir-component": lambda s: tasks(s)["a"].update(componentRef={"name": "none"}),
    "ir-producer": lambda s: tasks(s)["a"].update(dependentTasks=["none"]),
    "ir-input": lambda s: tasks(s)["a"]["inputs"]["parameters"].update(x={"componentInputParameter": "none"}),
    "ir-argument": lambda s: tasks(s)["a"].pop("inputs"),
    "ir-output": lambda s: s["root"]["dag"]["outputs"]["parameters"]["y"]["valueFromParameter"].update(
        producerSubtask="none"
    ),
    "ir-final-status": lambda s: tasks(s)["a"]["inputs"]["parameters"].update(
        x={"taskFinalStatus": {"producerTask": "no"}}
    ),
    "ir-iterator": lambda s: tasks(s)["a"].update(
        parameterIterator={"itemInput": "x", "items": {"inputParameter": "no"}}
    ),
    "ir-constant": lambda s: tasks(s)["a"]["inputs"]["parameters"].update(
        x={"runtimeValue": {"constant": "{{$.outputs.artifacts['y'].uri}}"}}
    ),
    "ir-channel": lambda s: tasks(s)["a"]["inputs"]["parameters"].update(
        x={"runtimeValue": {"constant": "<{{channel:task=;name=x;type=String;}}>"}}
    ),
    "ir-cycle": lambda s: tasks(s)["a"].update(dependentTasks=["b"]),
}


@pytest.mark.parametrize("code", [code for code, _, _ in RULES])
def test_each_rule_refuses_what_breaks_it(code: str) -> None:
    broken = copy.deepcopy(spec())
    BROKEN[code](broken)
    with pytest.raises(DefinitionError) as e:
        check(broken)
    assert e.value.code == code


@pytest.mark.parametrize("broken", [{"nonsense": 1}, {"root": 3}, {"components": []}, {"pipelineInfo": {"name": 7}}])
def test_a_shape_that_is_no_pipeline_spec_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError) as e:
        check({**spec(), **broken})
    assert e.value.code == "ir-shape"
