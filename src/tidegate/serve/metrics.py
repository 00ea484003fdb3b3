"""Counts as Prometheus metrics, made when they are asked for: nothing is observed one by one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest

from tidegate.serve.crew import Counted
from tidegate.serve.ruler import CODES, LATENCY, Ruler
from tidegate.serve.sheet import Numbers

OF_VERSION = ("model", "version", "digest")


class Collector:
    """A collector of prometheus-client.

    Args:
        model: the model's name.
        counted: what was counted, by version.
        gauges: name, help, value and labels of what is so now.
    """

    def __init__(
        self, model: str, counted: list[Counted], gauges: list[tuple[str, str, float, dict[str, str]]]
    ) -> None:
        self._model, self._counted, self._gauges = model, counted, gauges

    def collect(self) -> Iterator[Any]:
        """See ``prometheus_client.registry.Collector``."""
        for name, text, value, labels in self._gauges:
            family = GaugeMetricFamily(name, text, labels=tuple(labels))
            family.add_metric(list(labels.values()), value)
            yield family
        families = _families()
        for counted in self._counted:
            of = (self._model, str(counted.target.version), counted.target.digest)
            _add(families, of, counted.ruler, counted.numbers())
        yield from families.values()


def exposition(collector: Collector) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)


def _families() -> dict[str, Any]:
    counter, histogram = CounterMetricFamily, HistogramMetricFamily
    made = [
        counter("tidegate_requests", "Requests by code of the answer.", labels=(*OF_VERSION, "code")),
        histogram("tidegate_request_seconds", "From a request's last byte to its answer.", labels=OF_VERSION),
        counter("tidegate_batches", "Calls of the model.", labels=OF_VERSION),
        histogram("tidegate_predictions", "Predictions, by the version's own edges.", labels=(*OF_VERSION, "of")),
        counter("tidegate_labels", "Rows by the label that was predicted.", labels=(*OF_VERSION, "label")),
        counter("tidegate_input_rows", "Rows, by input.", labels=(*OF_VERSION, "input")),
        counter("tidegate_input_sum", "Sum of an input's values; of a text's lengths.", labels=(*OF_VERSION, "input")),
        counter("tidegate_input_squares", "Sum of their squares.", labels=(*OF_VERSION, "input")),
        counter("tidegate_input_missing", "Values that are no finite number.", labels=(*OF_VERSION, "input")),
        counter("tidegate_log_lines_lost", "Lines that could not be written.", labels=OF_VERSION),
        counter("tidegate_prediction_log_rows", "Rows by what came of them.", labels=(*OF_VERSION, "outcome")),
    ]
    return {family.name: family for family in made}


def _add(families: dict[str, Any], of: tuple[str, ...], ruler: Ruler, numbers: Numbers) -> None:
    if not numbers:
        return
    for code, n in zip([*map(str, CODES), "other"], numbers["codes"], strict=True):
        if n:
            families["tidegate_requests"].add_metric((*of, code), n)
    seconds = families["tidegate_request_seconds"]
    seconds.add_metric(of, buckets(LATENCY, numbers["latency"]), numbers["seconds"][0])
    families["tidegate_batches"].add_metric(of, numbers["batches"][0])
    predictions = families["tidegate_predictions"]
    predictions.add_metric((*of, ruler.of), buckets(ruler.edges, numbers["predictions"]), numbers["prediction_sum"][0])
    for label, n in zip(ruler.classes, numbers["labels"], strict=True):
        families["tidegate_labels"].add_metric((*of, label), n)
    lines, kept, lost = numbers["beside"]
    families["tidegate_log_lines_lost"].add_metric(of, lines)
    families["tidegate_prediction_log_rows"].add_metric((*of, "kept"), kept)
    families["tidegate_prediction_log_rows"].add_metric((*of, "lost"), lost)
    for i, column in enumerate(ruler.inputs):
        names = ("rows", "sum", "squares", "missing")
        for name, n in zip(names, numbers[f"input{i}"], strict=True):
            families[f"tidegate_input_{name}"].add_metric((*of, column.name), n)


def buckets(edges: tuple[float, ...], counts: list[float]) -> list[tuple[str, float]]:
    """Counts by bin as the cumulative buckets of Prometheus."""
    names = [repr(float(e)) for e in edges] + ["+Inf"]
    return list(zip(names, accumulate(counts), strict=True))
