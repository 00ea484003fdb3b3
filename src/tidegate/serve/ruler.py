"""By what a version is counted, and how its counts lie in a sheet. The leading process reads it too: nothing heavy here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.registry.signature import Signature
from tidegate.serve.sheet import Layout

CODES = (200, 400, 401, 403, 404, 405, 408, 413, 415, 421, 431, 500, 501, 503, 505)
LATENCY = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
NUMBER, TEXT = "number", "text"


@dataclass(frozen=True)
class Measured:
    """How one input is summarised.

    Attributes:
        name: of the column.
        kind: ``number`` or ``text``; of a text its length in characters is counted.
        edges: of its bins.
        frequent: texts that are counted one by one.
    """

    name: str
    kind: str
    edges: tuple[float, ...] = ()
    frequent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ruler:
    """By what a version is counted.

    Attributes:
        edges: of the predictions.
        of: what a prediction is: ``probability`` of the second of two classes, or the index of the ``label``.
        classes: as text.
        inputs: the columns.
        profile: the digest of the profile that it is from; empty for none.
    """

    edges: tuple[float, ...]
    of: str
    classes: tuple[str, ...]
    inputs: tuple[Measured, ...]
    profile: str = ""

    def layout(self) -> Layout:
        """The rows of its sheets."""
        rows = {"codes": len(CODES) + 1, "latency": len(LATENCY) + 1, "seconds": 1, "batches": 1}
        rows |= {"beside": 3}  # lines of the log that were lost, rows of the prediction log that were kept, and lost
        rows |= {"predictions": len(self.edges) + 1, "prediction_sum": 1, "labels": len(self.classes)}
        for i, column in enumerate(self.inputs):
            rows[f"input{i}"] = 4  # rows, sum, sum of squares, missing
            rows[f"bins{i}"] = len(column.edges) + 1
            rows[f"frequent{i}"] = len(column.frequent)
        return rows

    def as_json(self) -> dict[str, Any]:
        """To send it to another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Ruler:
        """The inverse of ``as_json``."""
        inputs = (Measured(c["name"], c["kind"], tuple(c["edges"]), tuple(c["frequent"])) for c in body["inputs"])
        return cls(tuple(body["edges"]), body["of"], tuple(body["classes"]), tuple(inputs), body["profile"])


def plain_ruler(signature: Signature) -> Ruler:
    """The ruler of a version without a profile: twenty equal bins of a probability, or one bin a class."""
    classes = tuple(str(c) for c in signature.classes)
    two = len(classes) == 2
    edges = tuple(i / 20 for i in range(1, 20)) if two else tuple(i + 0.5 for i in range(len(classes) - 1))
    inputs = tuple(Measured(t.name, TEXT if t.datatype == "BYTES" else NUMBER) for t in signature.inputs)
    return Ruler(edges, "probability" if two else "label", classes, inputs)
