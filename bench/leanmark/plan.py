"""From what the user asked for to cases. Pure; imports no torch."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from leanmark import chain, operations, registry, suite
from leanmark.errors import BadPlan, UnknownName, UsageError
from leanmark.intensity import Intensity, Site
from leanmark.machine import callgrind
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import BASELINE, REFERENCE_BACKEND, Case, Phase, SamplingPlan
from leanmark.thresholds import Thresholds

QUICK = SamplingPlan(
    profile="quick",
    processes=2,
    rounds=15,
    block_s=0.008,
    warmup_s=1.0,
    memory_processes=1,
    memory_steps=5,
    energy_window_s=0.15,
    energy_rounds=6,  # the fewest that give one process an interval
    timeout_s=120.0,
)

FULL = SamplingPlan(
    profile="full",
    processes=5,
    max_processes=25,
    rounds=20,
    block_s=0.02,
    warmup_s=5.0,
    memory_processes=5,
    memory_steps=20,
    samples=700,  # enough for a p99 with an interval
    target_seeds=5,  # enough for an interval across processes
    energy_window_s=1.0,
    energy_processes=5,
    energy_rounds=3,
    timeout_s=600.0,
)

BUDGET_PROCESSES = 25
"""How far a time budget may go on adding processes; so many reach about 1 % on a pinned, busy machine."""

EVERY_CONTEST = 5
"""With so many processes at first look, each contest has a sentinel of its own; else each workload."""

PROFILES: Mapping[str, SamplingPlan] = {plan.profile: plan for plan in (QUICK, FULL)}

TECHNIQUES = (BASELINE, "prune", "int8", "bf16", "distill", "distill+int8")
"""What the main job applies to each workload."""

ON_REQUEST = ("noop", "op", "resnet18", "mobilenet_v2", *suite.LARGER)
"""Workloads that the main job leaves out: they examine leanmark itself, or are too large for one core."""

BACKENDS_ON_REQUEST = ("openvino",)
"""A rival of libraries that the main job has already; it is not among the dependencies either."""

BATCHES: Mapping[Phase, tuple[int, ...]] = {"inference": (1, 32), "training": (32,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The axes of a run; empty means leanmark's own choice. ``workloads`` may hold users' own.

    ``gpu`` is the UUID of the board that ``device`` stands for, empty on a processor.
    """

    workloads: tuple[WorkloadSpec, ...] = ()
    techniques: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    batches: tuple[int, ...] = ()
    device: str = "cpu"
    gpu: str = ""
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``cases`` in the order they are measured; cases of one contest stand together.

    ``intensity`` is the grid's that the user stated and ``site`` what else, kept in the record; no number
    depends on them.
    ``gpu`` is the UUID of the board it is for, empty on a processor. ``left_out`` says what was asked for by
    name and is in no case, and why.
    """

    workloads: Mapping[str, WorkloadSpec]
    cases: tuple[Case, ...]
    sampling: SamplingPlan
    intensity: Intensity | None = None
    site: Site | None = None
    gpu: str = ""
    left_out: tuple[str, ...] = ()


def make(selection: Selection, sampling: SamplingPlan) -> Plan:
    """Every case the selection means, with the baselines its comparisons need.

    A combination that a technique or backend rules out by declaration is left out of the product. What was
    asked for by name and has none is told.

    Raises:
        UnknownName: a name that no registry has; the nearest are suggested.
        BadPlan: nothing is left to measure; says which technique ruled it out and why.
        UsageError: fewer threads than one.
    """
    specs = selection.workloads or tuple(
        WorkloadSpec(name=name) for name in _main_workloads(selection.device)
    )
    for spec in specs:
        if _is_operator(spec):
            operations.parse(spec.name)
        elif spec.data is None:
            _check("workload", spec.name, registry.rows("workloads"))
    for name in selection.backends:
        _check("backend", name, registry.rows("backends"))
    _check("device", selection.device, registry.rows("devices"))
    if selection.threads < 1:
        raise UsageError(f"threads are a whole number of at least 1, not {selection.threads}")
    refusals: list[str] = []
    cases = dict.fromkeys(case for spec in specs for case in _cases(spec, selection, refusals))
    if not cases:
        raise BadPlan("nothing to measure: " + ("; ".join(dict.fromkeys(refusals)) or "no case is selected"))
    if selection.device != "cpu":
        sampling = replace(sampling, timeout_s=max(sampling.timeout_s, suite.COMPILING_S))
    return Plan(
        workloads={spec.name: spec for spec in specs},
        cases=tuple(_with_sentinels(cases, every=sampling.processes >= EVERY_CONTEST)),
        sampling=sampling,
        gpu=selection.gpu,
        left_out=tuple(_left_out(selection, cases)),
    )


def _left_out(selection: Selection, cases: Iterable[Case]) -> Iterator[str]:
    """Each technique and backend that was named and is in no case, with the reasons."""
    used = {name for case in cases for name in (case.technique, case.backend)}
    techniques = tuple(chain.spell(chain.parse(text)) for text in selection.techniques)
    backends = selection.backends or tuple(_installed(selection.device))
    for name in dict.fromkeys((*techniques, *selection.backends)):
        reasons: list[str] = []
        if name in used:
            continue
        for phase in selection.phases or get_args(Phase):
            for backend in (name,) if name in selection.backends else backends:
                for technique in (name,) if name in techniques else techniques or (BASELINE,):
                    possible(technique, backend, selection.device, phase, reasons)
        yield f"{name} is left out: {'; '.join(dict.fromkeys(reasons))}"


def with_budget(sampling: SamplingPlan, text: str) -> SamplingPlan:
    """``sampling`` as a first look, and as many processes more as the time pays for.

    Raises:
        UsageError: ``text`` is no duration such as 90s, 5m or 1h.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if not seconds:
        raise UsageError(f"a budget is a duration such as 90s, 5m or 1h, not '{text}'")
    return replace(sampling, budget_s=seconds, max_processes=BUDGET_PROCESSES)


def with_thresholds(sampling: SamplingPlan, asked: Thresholds) -> SamplingPlan:
    """``sampling`` for the differences that count; intervals of latency are to be half the margin wide."""
    return replace(sampling, thresholds=asked, precision=asked.margin("latency") / 2)


def with_target(sampling: SamplingPlan, text: str) -> SamplingPlan:
    """``sampling`` with training runs to a quality: ``0.97``, ``97%``, or ``stated`` for the workload's own.

    Raises:
        UsageError: ``text`` is none of these, or not above 0 and at most 1.
    """
    if text.strip() == "stated":
        return replace(sampling, target="stated")
    match = re.fullmatch(r"(\d*\.?\d+)(%?)", text.strip())
    quality = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < quality <= 1:
        raise UsageError(
            f"a target is a quality above 0 and at most 1, such as 0.97 or 97%, or 'stated', not '{text}'"
        )
    return replace(sampling, target=quality)


def with_request_rate(sampling: SamplingPlan, hz: float) -> SamplingPlan:
    """``sampling`` with the energy of inference at ``hz`` requests per second too.

    Raises:
        UsageError: ``hz`` is not above 0 and finite.
    """
    if not 0 < hz < math.inf:
        raise UsageError(f"a request rate is a number of requests per second above 0, not {hz:g}")
    return replace(sampling, request_rate=hz)


def with_instructions(sampling: SamplingPlan, name: Literal["perf", "callgrind"]) -> SamplingPlan:
    """``sampling`` with its steps' instructions counted by ``name``.

    Raises:
        UsageError: callgrind cannot be used here, and why.
    """
    reason = callgrind.unavailable() if name == "callgrind" else None
    if reason:
        raise UsageError(f"instructions cannot be counted by callgrind: {reason}")
    return replace(sampling, instructions=name)


def against(selection: Selection, sampling: SamplingPlan, commit: str) -> Plan:
    """Every case of ``selection`` beside the same one at the other ``commit``, in one contest.

    The question is what a commit changed, so without techniques it is the unchanged model that runs.

    Raises:
        UnknownName, BadPlan: as :func:`make`.
    """
    made = make(replace(selection, techniques=selection.techniques or (BASELINE,)), sampling)
    pairs = ((case,) if case.sentinel else (replace(case, commit=commit), case) for case in made.cases)
    return replace(made, cases=tuple(case for pair in pairs for case in pair))


def check_budget(plan: Plan) -> None:
    """A budget has to hold the first look at every case, of which this counts the measured blocks alone.

    Raises:
        BadPlan: it cannot; the message says what it needs at least.
    """
    sampling = plan.sampling
    blocks = len(plan.cases) * sampling.processes * sampling.rounds
    least_s = blocks * sampling.block_s
    if sampling.budget_s is not None and sampling.budget_s < least_s:
        raise BadPlan(
            f"a budget of {sampling.budget_s:g} s is too small: {len(plan.cases)} cases in "
            f"{sampling.processes} processes of {sampling.rounds} rounds each measure for at least "
            f"{math.ceil(least_s)} s, and preparing the models comes on top. Give more, or select fewer cases"
        )


def restrict(plan: Plan, selected: Sequence[Case]) -> Plan:
    """Only ``selected``, and the baselines that they are compared to."""
    needed = set(selected)
    for case in selected:
        needed |= {case.baseline(), case.baseline(backend=REFERENCE_BACKEND)}
        needed |= {twin for twin in plan.cases if twin.commit and replace(twin, commit=None) == case}
    contests = {case.pair_key for case in needed}
    return replace(
        plan,
        cases=tuple(
            case for case in plan.cases if case in needed or (case.sentinel and case.pair_key in contests)
        ),
    )


def phases(texts: Sequence[str]) -> tuple[Phase, ...]:
    """Phases by name.

    Raises:
        UnknownName: there is no such phase.
    """
    for text in texts:
        _check("phase", text, dict.fromkeys(get_args(Phase)))
    return cast(tuple[Phase, ...], tuple(texts))


def batches(texts: Sequence[str]) -> tuple[int, ...]:
    """Batch sizes from text.

    Raises:
        UsageError: one is no whole number of at least 1.
    """
    for text in texts:
        if not text.isdecimal() or int(text) < 1:
            raise UsageError(f"a batch size is a whole number of at least 1, not '{text}'")
    return tuple(int(text) for text in texts)


def _main_workloads(device: str) -> Sequence[str]:
    if device != "cpu":
        return suite.GPU_WORKLOADS
    return [name for name in registry.rows("workloads") if name not in ON_REQUEST]


def _is_operator(spec: WorkloadSpec) -> bool:
    return spec.data is None and operations.named(spec.name)


def _cases(spec: WorkloadSpec, selection: Selection, refusals: list[str]) -> Iterator[Case]:
    backends = selection.backends or tuple(_installed(selection.device))
    operator = _is_operator(spec)
    usual = TECHNIQUES if selection.device == "cpu" else suite.GPU_TECHNIQUES
    chosen = selection.techniques or (operations.techniques(spec.name) if operator else usual)
    batches = suite.GPU_BATCHES.get(spec.name, BATCHES)
    techniques = tuple(chain.spell(chain.parse(text)) for text in chosen)
    for phase in _phases(operator, selection, refusals):
        for batch in selection.batches or ((1,) if operator else batches[phase]):
            candidates = [
                Case(
                    workload=spec.name,
                    technique=technique,
                    backend=backend,
                    device=selection.device,
                    phase=phase,
                    batch=batch,
                    threads=selection.threads,
                )
                for technique in techniques
                for backend in backends
                if possible(technique, backend, selection.device, phase, refusals)
            ]
            for case in candidates:
                yield case.baseline(backend=REFERENCE_BACKEND if REFERENCE_BACKEND in backends else None)
            for case in candidates:
                yield case.baseline()
            yield from candidates


def _installed(device: str) -> Iterator[str]:
    """On processors all, and what is missing is told; on GPUs, where models are large, what is there."""
    for name in registry.rows("backends"):
        if name in BACKENDS_ON_REQUEST:
            continue
        if device == "cpu" or registry.load("backends", name)().unavailable_on(device) is None:
            yield name


def _phases(operator: bool, selection: Selection, refusals: list[str]) -> Iterator[Phase]:
    for phase in selection.phases or get_args(Phase):
        if operator and phase == "training":
            refusals.append("a single operator is measured in inference only")
        else:
            yield phase


def _with_sentinels(cases: Iterable[Case], *, every: bool) -> Iterator[Case]:
    """The first baseline of a contest once more: of every contest, or of the first of each workload."""
    seen: set[object] = set()
    for case in cases:
        yield case
        key = case.pair_key if every else case.workload
        if key not in seen:
            seen.add(key)
            yield replace(case, sentinel=True)


def possible(technique: str, backend: str, device: str, phase: Phase, refusals: list[str]) -> bool:
    """Whether nothing rules this combination out by declaration; else ``refusals`` gets the reason."""
    links = chain.parse(technique)
    steps = [chain.build(link) for link in links]
    for link, step, after in zip(links, steps, steps[1:], strict=False):
        if step.level == "graph" and after.level == "module":
            refusals.append(f"in {technique}, {link} ends what torch can change: put it last")
            return False
    engine = registry.load("backends", backend)
    if phase not in engine.phases or device not in engine.devices:
        refusals.append(f"{backend} has no {phase} on {device}: {engine.refusal}")
        return False
    for link, step in zip(links, steps, strict=True):
        if backend not in step.backends or phase not in step.phases or device not in step.devices:
            where = backend if device in step.devices else device
            refusals.append(f"{link.name} has no {phase} on {where}: {step.refusal}")
            return False
    return True


def _check(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise UnknownName(kind, name, known)
