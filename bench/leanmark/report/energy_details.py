"""The lines about energy among the figures of a row: how sure, from what, net of what, paid back when."""

from __future__ import annotations

import math
from collections.abc import Iterator

from leanmark import units
from leanmark.reading import sci
from leanmark.reading.break_even import BreakEven, Part, Spent, break_evens
from leanmark.reading.compare import ESTIMATED
from leanmark.reading.energetics import Energetics
from leanmark.reading.quality_run import QualityRun, Spread
from leanmark.reading.table import Metric, Row
from leanmark.record import Cost, Provenance
from leanmark.report import cells, to_target
from leanmark.statistics.stats import MIN_PROCESSES

Detail = tuple[str, str]

_ESTIMATE_WARNING = "an estimate: it follows time, and other load on the machine, and no sensor was read"


def energy(row: Row, metric: Metric) -> Iterator[Detail]:
    """What is known about ``metric``, the energy of ``row``."""
    summary, known = metric.summary, row.energetics or Energetics()
    if summary.provenance is Provenance.ESTIMATED_MODEL:
        source = f"{known.source}; " if known.source else ""
        yield "Energy per step", f"~{units.joules(summary.value)} ({source}{_ESTIMATE_WARNING})"
    else:
        kind = summary.provenance.value.replace("_", " ")
        yield "Energy per step", f"{cells.with_interval(metric, units.joules)} ({kind}, {known.source})"
        yield from _measured(known)
    mark = summary.provenance.mark
    if row.case.batch > 1:
        yield "Energy per sample", mark + units.joules(summary.value / row.case.batch)
    if row.model and row.model.tokens:
        share = summary.value / row.case.batch / row.model.tokens
        yield "Energy per token", f"{mark}{units.joules(share)} ({row.model.tokens} tokens a sample)"


def _measured(known: Energetics) -> Iterator[Detail]:
    if known.doubt_j is not None:
        gain = f"; of it the sensor's gain, {known.gain:.0%}, cancels in ratios here" if known.gain else ""
        yield "Uncertainty of it", f"±{units.joules(known.doubt_j)}{gain}"
    if known.power_w is not None:
        yield "Mean power", units.watts(known.power_w)
    for kind, idle in known.idle.items():
        state = "no process started" if kind == "bare" else "models loaded"
        yield (
            f"Idle power, {state}",
            f"{units.watts(idle.before_w)} before, {units.watts(idle.after_w)} after",
        )
    if known.net is not None:
        doubt = units.joules(known.net.doubt_j)
        yield (
            "Energy net of idle with models loaded (diagnostic)",
            f"{units.joules(known.net.value_j)} ±{doubt}",
        )
    elif known.net_refusal is not None:
        yield "No net energy", known.net_refusal


def footprint(known: sci.Footprint | None, of: str, mark: str) -> Iterator[Detail]:
    """Grams beyond energy times intensity, each in a line of its own: they are in no other number."""
    if known is None:
        return
    if known.site.pue is not None:
        grams = units.grams(known.score.operational_g)
        yield f"CO2e {of} of the facility, at PUE {known.site.pue:g}", f"{mark}{grams}"
    if known.score.embodied_range_g is not None:
        low, high = (units.grams(bound) for bound in known.score.embodied_range_g)
        yield (
            f"Embodied CO2e {of}",
            f"~{units.grams(known.score.embodied_g)} [{low}, {high}] (an estimate: {known.site.embodied})",
        )


def cost(row: Row) -> Iterator[Detail]:
    """What making the model took: a training run for the baseline, applying a technique for the others."""
    if row.cost is None:
        return
    made, joules = row.cost, _joules(row.cost)
    if made.epochs and made.steps:
        reached = f", to {row.judged.quality.metric} {cells.quality(row)}" if row.judged else ""
        text = f"{units.seconds(made.time_s)} for {made.epochs} epochs, {made.steps} steps{reached}"
        yield "Training run", f"{text}; {joules}"
        if made.energy_j is not None:
            mark = made.energy_provenance.mark
            each = [mark + units.joules(made.energy_j / count) for count in (made.epochs, made.steps)]
            yield "Energy of training it", f"{each[0]} an epoch, {each[1]} a step"
    else:
        yield "Cost of making it, once", f"{units.seconds(made.time_s)}; {joules}"
    if made.build_s is not None:
        energy = f"; {made.energy_provenance.mark}{units.joules(made.build_j)}" if made.build_j else ""
        yield "Writing it for its backend, once", f"{units.seconds(made.build_s)}{energy}"


def quality_run(row: Row) -> Iterator[Detail]:
    """What training took until the model was good enough, or why that has no number."""
    known = row.quality_run
    if known is None:
        return
    label = "Training to a quality target"
    if known.metric is not None and known.target is not None:
        label = f"Training to {known.metric} {units.quality(known.metric, known.target)}"
    if known.time is None:
        yield label, known.refusal or "not measured"
        return
    where = ", on the processor, where models are made" if known.device != row.case.device else ""
    yield label, f"{_spread(known.time, units.seconds)}{where}{_over(known.time)}; {_epochs(known)}"
    if known.energy is not None:
        parts = (f"without {part}" for part in known.left_out)
        text = ", ".join((_spread(known.energy, units.joules), "that of judging included", *parts))
        yield "Energy of training to it", f"{text}{_over(known.energy)}"
        if known.co2_g is not None:
            mark = known.energy.summary.provenance.mark
            yield "CO2e of training to it", mark + units.grams(known.co2_g)
    elif known.refusal is not None:
        yield "Energy of training to it", known.refusal


def quality_run_footprint(row: Row) -> Iterator[Detail]:
    """The further grams of it."""
    known = row.quality_run
    if known is not None and known.energy is not None:
        yield from footprint(known.footprint, "of training to it", known.energy.summary.provenance.mark)


def _spread(found: Spread, unit: cells.Unit) -> str:
    """``1.21 s [1.05, 1.37 s]``: the interval over five runs and more, else the range of fewer."""
    summary, interval = found.summary, found.summary.interval
    text = summary.provenance.mark + unit(summary.value)
    if interval is not None:
        text += f" {cells.between(interval, unit)}"
    if found.doubt is not None:
        text += f" ±{unit(found.doubt)} by the meter"
    if summary.count == 1:
        return f"{text}, one run"
    return f"{text}, {summary.count} runs of {unit(found.least)} to {unit(found.most)}"


def _over(found: Spread) -> str:
    """``; 0.83× [0.75, 0.92] of fp32's, better``: what was compared are runs of equal seed."""
    compared, plain = found.comparison, found.plain_ratio
    if compared is None:
        return ""
    whose = f"of {compared.baseline.label}'s"
    if compared.ratio is not None:
        why = f" ({compared.reason})" if compared.reason else ""
        return f"; {cells.comparison(compared)} {whose}, {compared.verdict}{why}"
    if compared.reason == ESTIMATED:  # said once, below the tables
        return ""
    if plain is None:
        return f"; no ratio: {compared.reason}"
    return f"; {units.ratio(plain)}{cells.BARE} {whose}, and an interval needs {MIN_PROCESSES} seeds of both"


def _epochs(known: QualityRun) -> str:
    least, most = min(known.epochs), max(known.epochs)
    counts = f"{least}" if least == most else f"{least} to {most}"
    share = f", which took {to_target.part(known.looking)} of the time" if known.looking is not None else ""
    text = f"{counts} of at most {known.longest} epochs, judged at the end of each{share}"
    if known.earlier:
        text += f"; {to_target.part(known.earlier)} went into the trained model that they began with"
    return text


def _joules(made: Cost) -> str:
    if made.energy_j is None:
        return f"energy not measured: {made.energy_reason}" if made.energy_reason else "energy not measured"
    text = made.energy_provenance.mark + units.joules(made.energy_j)
    if made.energy_uncertainty_j is not None:
        text += f" ±{units.joules(made.energy_uncertainty_j)}"
    return text


def pay_back(row: Row) -> Iterator[Detail]:
    """After how many inferences a technique has paid back what it cost."""
    for one in break_evens(row):
        text = _pays_back(one)
        if one.quantity == "energy" and one.count is not None and row.case.device != "cpu":
            text += (
                "; making and writing it was metered on the processor, all else on the board alone: what its "
                "host draws meanwhile, as while it compiles in a first call, is left out"
            )
        yield f"Break-even in {one.quantity}", text


def _pays_back(one: BreakEven) -> str:
    if one.count is None or one.low is None or one.high is None:
        return one.refusal or "not known"
    assert one.spent is not None
    spent = _cost(one.spent, units.seconds if one.quantity == "time" else units.joules)
    if math.isinf(one.low):
        return f"never: it saves nothing that could pay back {spent}"
    if math.isinf(one.count):
        return f"never at the ratio that was measured; at best {_times(one.low)} pay back {spent}"
    until = "never" if math.isinf(one.high) else units.count(one.high)
    return f"{_times(one.count)} [{units.count(one.low)}, {until}] pay back {spent}"


_PARTS: dict[Part, str] = {
    "applied": "to make",
    "built": "to write for its backend",
    "first call": "{} in its first call, which is counted once",
}
_LEFT_OUT: dict[Part, str] = {"built": "writing it for its backend", "first call": "its first call"}


def _cost(spent: Spent, unit: cells.Unit) -> str:
    """``the 14.2 s that it cost (2.00 s to make, 1.20 s to write for its backend, 11.0 s more in its first
    call, which is counted once)``."""
    text = f"the {unit(spent.value)} that it cost"
    told = [
        f"{unit(abs(value))} {_PARTS[part].format('less' if value < 0 else 'more')}"
        for part, value in spent.parts.items()
    ]
    told += [f"without {_LEFT_OUT[part]}, of which no counter told" for part in spent.unknown]
    return f"{text} ({', '.join(told)})" if len(told) > 1 else text


def _times(count: float) -> str:
    return f"{units.count(math.ceil(count))} inferences"
