"""Prometheus' text format, for node_exporter's textfile collector or a Pushgateway; both refuse timestamps.

Base units are in the names, and what a case is in the labels; the run and its commit are in a metric of their
own, or every run would begin new series.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from leanmark import store
from leanmark.reading.figures import Figure, figures, identity, published
from leanmark.reading.table import Table
from leanmark.record import Run

Sample = tuple[str, str, Mapping[str, object], float]
"""Name, help, labels, value."""

_UNITS: Mapping[str, str] = {"s": "seconds", "bytes": "bytes", "j": "joules", "g": "grams"}

_HELP: Mapping[str, str] = {
    "latency_s": "Time of one step.",
    "cold_start_s": "Time of the first call of a process.",
    "device_time_s": "Time of one step on the device itself.",
    "cold_device_time_s": "Time of one step on the device itself, its cache emptied.",
    "host_overhead_s": "What the host adds to the time of one step on the device.",
    "peak_memory_bytes": "Peak memory of a process.",
    "working_memory_bytes": "Peak memory beyond that of the libraries.",
    "steady_memory_bytes": "Memory between steps.",
    "import_memory_bytes": "Memory of a process that has loaded its libraries.",
    "energy_j": "Energy of one step.",
    "energy_at_rate_j": "Energy for one step at a fixed request rate.",
    "estimated_energy_j": "Energy of one step by a model of power: an estimate.",
    "estimated_energy_at_rate_j": "Energy for one step at a fixed request rate: an estimate.",
    "estimated_co2_g": "Grams of CO2 equivalent of one step: an estimate.",
    "model_size_bytes": "Size of the file of the model.",
    "model_parameters": "Parameters of the model.",
    "model_macs": "Multiply-accumulates for one sample.",
    "accuracy": "Share of test samples that the model gets right; higher is better.",
    "agreement": "Share of predictions that are those of the unchanged model; higher is better.",
    "r2": "Coefficient of determination on test samples; higher is better.",
    "max_error": "Largest error of an output.",
}


def render(tables: Sequence[Table]) -> str:
    """``tables`` as gauges. Bounds are those of the 95 % interval; a ratio is candidate over baseline."""
    families: dict[str, list[str]] = {}
    for name, about, labels, value in _samples(tables):
        head = [f"# HELP {name} {_escaped(about)}", f"# TYPE {name} gauge"]
        told = ",".join(f'{key}="{_quoted(str(each))}"' for key, each in labels.items())
        families.setdefault(name, head).append(f"{name}{{{told}}} {value}")
    return "".join(f"{line}\n" for family in families.values() for line in family)


def _samples(tables: Sequence[Table]) -> Iterator[Sample]:
    for run in {table.run.id: table.run for table in tables}.values():
        yield from _run(run)
    for row in published(tables):
        labels = identity(row.case)
        for figure in figures(row):
            # over another commit, a ratio is of another thing: it must not continue the same series
            shown = replace(figure, ratio=None) if row.role == "commit" else figure
            for name, about, value in _values(shown):
                yield name, about, labels, value


def _run(run: Run) -> Iterator[Sample]:
    facts = {
        "run": run.id,
        "commit": run.commit or "",
        "machine": store.machine_slug(run.environment),
        "leanmark": run.leanmark,
    }
    yield "leanmark_run_info", "The run that all values are from.", facts, 1
    started = datetime.fromisoformat(run.started).timestamp()
    yield "leanmark_run_start_timestamp_seconds", "When the run began.", {"run": run.id}, started


def _values(figure: Figure) -> Iterator[tuple[str, str, float]]:
    stem, _, end = figure.metric.rpartition("_")
    base, unit = (stem, f"_{_UNITS[end]}") if end in _UNITS else (figure.metric, "")
    about = _help(figure.metric)
    yield f"leanmark_{base}{unit}", about, figure.value
    if figure.interval:
        yield f"leanmark_{base}_lower{unit}", f"Lower bound: {about}", figure.interval.low
        yield f"leanmark_{base}_upper{unit}", f"Upper bound: {about}", figure.interval.high
    if figure.ratio:
        yield f"leanmark_{base}_ratio", f"Over the baseline of the same run: {about}", figure.ratio.value
        yield f"leanmark_{base}_lower_ratio", f"Lower bound over the baseline: {about}", figure.ratio.low
        yield f"leanmark_{base}_upper_ratio", f"Upper bound over the baseline: {about}", figure.ratio.high


def _help(metric: str) -> str:
    if metric.startswith("latency_p"):
        return f"Percentile {metric.split('_')[1]} of the time of single steps of one process."
    return _HELP.get(metric, f"{metric.replace('_', ' ').capitalize()} of one step.")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
