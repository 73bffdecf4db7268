"""Everything known about a row or a run, as pairs of a label and a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from leanmark import units
from leanmark.reading.counts import Counted
from leanmark.reading.memory import Split
from leanmark.reading.table import Judged, Row
from leanmark.record import Comparison, ModelFacts, Run
from leanmark.report import cells, energy_details

Detail = tuple[str, str]


def details(row: Row) -> list[Detail]:
    """What is known about ``row``, and why the rest is not."""
    return [
        *_time(row),
        *_memory(row),
        *(_counters(row.counted) if row.counted else ()),
        *_energy(row),
        *(_quality(row.judged, _unchanged(row), changed=row.role != "baseline") if row.judged else ()),
        *(_model(row.model, row.reference_model) if row.model else ()),
        *energy_details.cost(row),
        *energy_details.quality_run(row),
        *energy_details.quality_run_footprint(row),
        *energy_details.pay_back(row),
        *_executed(row),
        *((f"No {name} pass", reason) for name, reason in row.missing.items()),
        *(("Finding", finding.message) for finding in row.findings),
    ]


def run_facts(run: Run) -> dict[str, list[Detail]]:
    """What is known about ``run``, by heading."""
    plan, environment = run.plan, run.environment
    return {
        "Run": [
            ("started", run.started),
            ("leanmark", run.leanmark),
            ("commit", run.commit or "not known"),
            *([("against", str(run.against))] if run.against else ()),
            ("command", " ".join(run.command)),
            ("plan", f"{plan.profile}: {_plural(plan.processes, 'process')} of {plan.rounds} rounds"),
            ("seed", str(plan.seed)),
        ],
        "Machine": _named(environment.machine, absent="not known"),
        "Software": _named(environment.software, absent="not installed"),
        "Conditions": _named(environment.conditions, absent="could not be read"),
    }


def _named(pairs: Mapping[str, object], absent: str) -> list[Detail]:
    return [(key.replace("_", " "), absent if value is None else str(value)) for key, value in pairs.items()]


def _time(row: Row) -> Iterator[Detail]:
    if row.latency is None:
        return
    summary = row.latency.summary
    extent = f"{_plural(summary.count, 'block')} in {_plural(summary.processes, 'process')}"
    yield "Latency per step", f"{cells.with_interval(row.latency, units.seconds)}; {extent}"
    for one in row.percentiles:
        found = one.interval
        extent = f"[{units.seconds(found.low)}, {units.seconds(found.high)}]" if found else ""
        text = f"{units.seconds(found.value)} {extent}" if found else one.refusal or ""
        yield f"Single steps, {one.name}", f"{text}; {one.count} steps of one process"
    if row.device:
        yield "On the device itself", units.seconds(row.device.hot.value)
        if row.device.cold:
            yield "The same, its cache emptied", units.seconds(row.device.cold.value)
        yield "Added by the host", units.seconds(row.device.host_overhead.value)
    yield "Throughput", f"{units.rate(row.samples_per_s)} (samples)"
    if row.latency.comparison:
        yield "Latency ratio", _comparison(row.latency.comparison)
    if row.cold_start:
        yield "First call", cells.with_interval(row.cold_start, units.seconds)


def _memory(row: Row) -> Iterator[Detail]:
    host = row.case.device == "cpu"
    board = row.memory is not None and row.memory.of_board
    peak = "Peak memory" if host else "Peak memory of the host"
    for label, metric in (
        (peak, row.peak_memory),
        ("Memory after the imports", row.import_memory),
        (
            "Working memory (peak of the GPU's allocator)" if board else "Working memory (peak less imports)",
            row.working_memory,
        ),
        ("Memory between steps", row.steady_memory),
    ):
        if metric:
            yield label, cells.with_interval(metric, units.size)
    if row.memory:
        yield from _split(row.memory, "Memory in use on the board" if board else peak)
    if row.working_memory and row.working_memory.comparison:
        yield (
            "Working memory ratio",
            f"{cells.memory_ratio(row)}; {_conclusion(row.working_memory.comparison)}",
        )


def _split(memory: Split, peak: str) -> Iterator[Detail]:
    for label, parts in ((f"{peak} is", memory.peak), ("Memory between steps is", memory.steady)):
        if parts:
            yield label, " + ".join(f"{units.size(value)} {part}" for part, value in parts.items())
    if memory.shared_out is not None and memory.own is not None:
        yield (
            "Of it, by the kernel",
            f"{units.size(memory.own)} of its own (USS), {units.size(memory.shared_out)} with its share of "
            "what others use too (PSS)",
        )
    if memory.left_out is not None:
        yield "Left out", f"{units.size(memory.left_out)} that leanmark itself takes of the process"


_COUNTERS = {
    "flops": "FLOPs per step",
    "operator_calls": "Operators per step",
    "read_bytes": "Bytes that operators read per step",
    "written_bytes": "Bytes that operators write per step",
    "allocations": "Allocations per step",
    "allocated_bytes": "Bytes allocated per step",
    "instructions": "Instructions per step",
}


def _counters(counted: Counted) -> Iterator[Detail]:
    for metric, label in _COUNTERS.items():
        if metric in counted.counts:
            count = counted.counts[metric]
            by = ", by callgrind" if count.meter == "callgrind" else ""
            yield label, f"{count.change}{by}"
        elif metric in counted.missing:
            yield label, f"not counted: {counted.missing[metric]}"


def _energy(row: Row) -> Iterator[Detail]:
    if row.energy is None:
        return
    yield from energy_details.energy(row, row.energy)
    if row.energy.comparison:
        yield "Energy ratio", _comparison(row.energy.comparison)
    yield "CO2e per step", cells.co2(row) if row.co2_g is not None else "no grid intensity is known"
    mark = row.energy.summary.provenance.mark
    yield from energy_details.footprint(row.footprint, "per step", mark)
    if row.energy_at_rate:
        rate = row.energetics.rate_hz if row.energetics else None
        text = cells.with_interval(row.energy_at_rate, units.joules)
        yield f"Energy per request at {rate:g} requests/s", text
        if row.energy_at_rate.comparison:
            yield "Energy ratio at that rate", _comparison(row.energy_at_rate.comparison)


def _comparison(compared: Comparison) -> str:
    if compared.ratio is None:
        return _conclusion(compared)
    parts = [
        f"{cells.comparison(compared)} of {compared.baseline.label} · {compared.baseline.backend}",
        _conclusion(compared),
        f"margin {compared.margin:.1%}" + (" (the floor)" if 0 < compared.floor == compared.margin else ""),
    ]
    if compared.allowance:
        parts.append(f"allowance {compared.allowance:.1%}")
    if compared.detectable is not None:
        parts.append(f"smallest effect found with 80 % probability {compared.detectable:.1%}")
    parts.append(f"{_plural(compared.processes, 'process')}, {_plural(compared.pairs, 'shared round')}")
    return "; ".join(parts)


def _conclusion(compared: Comparison) -> str:
    return compared.verdict + (f" ({compared.reason})" if compared.reason else "")


def _unchanged(row: Row) -> str:
    """Whom the predictions are paired with."""
    return "the other commit" if row.role == "commit" else "fp32"


def _quality(judged: Judged, unchanged: str, *, changed: bool) -> Iterator[Detail]:
    quality = judged.quality
    text = cells.quality_value(judged)
    if judged.interval:
        text += f" {cells.between(judged.interval, units.percent)}"
    yield quality.metric.capitalize(), f"{text} on {_plural(quality.count, 'sample')}"
    if changed and judged.change:
        change = cells.between(judged.change, units.points)
        yield (
            f"Change in {quality.metric}",
            f"{units.points(judged.change.value)} {change} points; {quality.gained} gained, "
            f"{quality.lost} lost; {judged.verdict}",
        )
    if changed and quality.agreement is not None:
        yield f"Same prediction as {unchanged}", units.percent(quality.agreement)
    if quality.relative_error is not None:
        yield "Relative error of the outputs, to the model as last trained", f"{quality.relative_error:.2g}"


def _model(model: ModelFacts, before: ModelFacts | None) -> Iterator[Detail]:
    old = before or model
    yield "Parameters", _with_ratio(units.count(model.parameters), model.parameters, old.parameters)
    yield "MACs per sample", _with_ratio(units.count(model.macs), model.macs, old.macs)
    yield "Size to ship", _with_ratio(units.size(model.size_bytes), model.size_bytes, old.size_bytes)


def _with_ratio(text: str, value: int, before: int) -> str:
    return f"{text} ({units.ratio(value / before)})" if before not in (0, value) else text


def _executed(row: Row) -> Iterator[Detail]:
    yield from ((f"Ran: {key.replace('_', ' ')}", _plain(value)) for key, value in _ran(row).items())


def _ran(row: Row) -> dict[str, object]:
    """What ran; what was not counted of it has its place beside the counters. A baseline has no proof."""
    return {key: value for key, value in row.executed.items() if key != "not_counted" and value != {}}


def _plain(value: object) -> str:
    """A nested value from a record as words: ``convolution 7, addmm 1``."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        nested = any(isinstance(item, Mapping) for item in value)
        return ("; " if nested else " ").join(_plain(item) for item in value)
    return str(value)


def _plural(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun}{'es' if noun.endswith('s') else 's'}"
