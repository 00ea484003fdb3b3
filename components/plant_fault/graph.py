"""Faults in an ONNX graph: nodes between one input and whoever reads it, which pass its value on unchanged."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from tidegate.errors import ParameterError

SIZE = 128  # of the matrices of a slow model
Nodes = list[NodeProto]
Constants = list[TensorProto]


def plant(source: Path, target: Path, column: str, fault: str, above: float, work: int) -> None:
    """Copy a model folder to ``target``, with a fault.

    Raises:
        ParameterError: there is no such fault, or no such numeric input.
    """
    makers: dict[str, Callable[[str, int], tuple[Nodes, Constants]]] = {
        "fails": lambda name, kind: fails(name, kind, above),
        "slow": lambda name, kind: slow(name, kind, work),
    }
    if fault not in makers:
        raise ParameterError(f"there is no fault {fault!r}", allowed=f"One of: {', '.join(makers)}.")
    model = onnx.load(source / "model.onnx")
    nodes, constants = makers[fault](column, _kind(model, column))
    for node in model.graph.node:
        node.input[:] = [_after(column) if name == column else name for name in node.input]
    kept = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    model.graph.initializer.extend(constants)
    onnx.checker.check_model(model)
    shutil.copytree(source, target, dirs_exist_ok=True)
    onnx.save(model, target / "model.onnx")


def fails(column: str, kind: int, above: float) -> tuple[Nodes, Constants]:
    """An index beyond a table of one zero, where the column is greater than ``above``; the zero is added."""
    constants = [_constant("planted_limit", np.array([above], np.float32)), _zero(kind)]
    nodes = [
        helper.make_node("Cast", [column], ["planted_value"], to=TensorProto.FLOAT),
        helper.make_node("Greater", ["planted_value", "planted_limit"], ["planted_is_above"]),
        helper.make_node("Cast", ["planted_is_above"], ["planted_index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["planted_zero", "planted_index"], ["planted_nothing"]),
        helper.make_node("Add", [column, "planted_nothing"], [_after(column)]),
    ]
    return nodes, constants


def slow(column: str, kind: int, work: int) -> tuple[Nodes, Constants]:
    """Products of matrices that begin with the column, so that none is known beforehand; zero times the last is added."""
    half = np.full((SIZE, SIZE), 0.5 / SIZE, np.float32)  # entries stay small, whatever the column holds
    constants = [_constant("planted_half", half), _zero(kind)]
    nodes = [
        helper.make_node("Cast", [column], ["planted_value"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["planted_value"], ["planted_most"], keepdims=0),
        helper.make_node("Tanh", ["planted_most"], ["planted_seed"]),
        helper.make_node("Mul", ["planted_half", "planted_seed"], ["planted_0"]),
    ]
    for i in range(work):
        nodes.append(helper.make_node("MatMul", [f"planted_{i}", "planted_half"], [f"planted_{i + 1}"]))
    nodes += [
        helper.make_node("ReduceMax", [f"planted_{work}"], ["planted_last"], keepdims=0),
        helper.make_node("Cast", ["planted_last"], ["planted_end"], to=kind),
        helper.make_node("Mul", ["planted_end", "planted_zero"], ["planted_nothing"]),
        helper.make_node("Add", [column, "planted_nothing"], [_after(column)]),
    ]
    return nodes, constants


def _after(column: str) -> str:
    return f"planted_after_{column}"


def _zero(kind: int) -> TensorProto:
    return _constant("planted_zero", np.zeros(1, helper.tensor_dtype_to_np_dtype(kind)))


def _constant(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(value, name)


def _kind(model: onnx.ModelProto, column: str) -> int:
    numbers = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)
    kinds = {i.name: i.type.tensor_type.elem_type for i in model.graph.input}
    known = sorted(n for n, k in kinds.items() if k in numbers)
    if column not in known:
        raise ParameterError(f"the model has no numeric input {column!r}", allowed=f"One of: {', '.join(known)}.")
    return kinds[column]
