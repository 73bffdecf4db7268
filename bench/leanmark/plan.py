"""From what the user asked for to cases. Pure; imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from leanmark import chain, registry
from leanmark.errors import BadPlan, UnknownName, UsageError
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import BASELINE, REFERENCE_BACKEND, Case, Phase, SamplingPlan

QUICK = SamplingPlan(
    profile="quick",
    processes=2,
    rounds=15,
    block_s=0.008,
    warmup_s=1.0,
    memory_processes=1,
    memory_steps=5,
    energy_window_s=0.15,
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
    energy_window_s=1.0,
    timeout_s=600.0,
)

BUDGET_PROCESSES = 25
"""How far a time budget may go on adding processes; so many reach about 1 % on a pinned, busy machine."""

EVERY_CONTEST = 5
"""With so many processes at first look, each contest has a sentinel of its own; else each workload."""

PROFILES: Mapping[str, SamplingPlan] = {plan.profile: plan for plan in (QUICK, FULL)}

TECHNIQUES = (BASELINE, "prune", "int8", "bf16", "distill", "distill+int8")
"""What the main job applies to each workload."""

ON_REQUEST = ("noop",)
"""Workloads that the main job leaves out: they examine leanmark itself."""

BATCHES: Mapping[Phase, tuple[int, ...]] = {"inference": (1, 32), "training": (32,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The axes of a run; empty means leanmark's own choice. ``workloads`` may hold users' own."""

    workloads: tuple[WorkloadSpec, ...] = ()
    techniques: tuple[str, ...] = ()
    backends: tuple[str, ...] = ()
    phases: tuple[Phase, ...] = ()
    batches: tuple[int, ...] = ()
    device: str = "cpu"
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``cases`` in the order they are measured; cases of one contest stand together."""

    workloads: Mapping[str, WorkloadSpec]
    cases: tuple[Case, ...]
    sampling: SamplingPlan


def make(selection: Selection, sampling: SamplingPlan) -> Plan:
    """Every case the selection means, with the baselines its comparisons need.

    A combination that a technique or backend rules out by declaration is left out of the product.

    Raises:
        UnknownName: a name that no registry has; the nearest are suggested.
        BadPlan: nothing is left to measure; says which technique ruled it out and why.
    """
    specs = selection.workloads or tuple(
        WorkloadSpec(name=name) for name in registry.rows("workloads") if name not in ON_REQUEST
    )
    for spec in specs:
        if spec.data is None:
            _check("workload", spec.name, registry.rows("workloads"))
    for name in selection.backends:
        _check("backend", name, registry.rows("backends"))
    _check("device", selection.device, registry.rows("devices"))
    techniques = tuple(chain.spell(chain.parse(text)) for text in selection.techniques or TECHNIQUES)
    refusals: list[str] = []
    cases = dict.fromkeys(
        case for spec in specs for case in _cases(spec.name, techniques, selection, refusals)
    )
    if not cases:
        raise BadPlan("nothing to measure: " + ("; ".join(dict.fromkeys(refusals)) or "no case is selected"))
    return Plan(
        workloads={spec.name: spec for spec in specs},
        cases=tuple(_with_sentinels(cases, every=sampling.processes >= EVERY_CONTEST)),
        sampling=sampling,
    )


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


def restrict(plan: Plan, selected: Sequence[Case]) -> Plan:
    """Only ``selected``, and the baselines that they are compared to."""
    needed = set(selected)
    for case in selected:
        needed |= {case.baseline(), case.baseline(backend=REFERENCE_BACKEND)}
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


def _cases(
    workload: str, techniques: Sequence[str], selection: Selection, refusals: list[str]
) -> Iterator[Case]:
    backends = selection.backends or tuple(registry.rows("backends"))
    for phase in selection.phases or ("inference", "training"):
        for batch in selection.batches or BATCHES[phase]:
            candidates = [
                Case(
                    workload=workload,
                    technique=technique,
                    backend=backend,
                    device=selection.device,
                    phase=phase,
                    batch=batch,
                    threads=selection.threads,
                )
                for technique in techniques
                for backend in backends
                if _possible(technique, backend, phase, refusals)
            ]
            for case in candidates:
                yield case.baseline(backend=REFERENCE_BACKEND if REFERENCE_BACKEND in backends else None)
            for case in candidates:
                yield case.baseline()
            yield from candidates


def _with_sentinels(cases: Iterable[Case], *, every: bool) -> Iterator[Case]:
    """The first baseline of a contest once more: of every contest, or of the first of each workload."""
    seen: set[object] = set()
    for case in cases:
        yield case
        key = case.pair_key if every else case.workload
        if key not in seen:
            seen.add(key)
            yield replace(case, sentinel=True)


def _possible(technique: str, backend: str, phase: Phase, refusals: list[str]) -> bool:
    engine = registry.load("backends", backend)
    if phase not in engine.phases:
        refusals.append(f"{backend} has no {phase}: {engine.refusal}")
        return False
    for link in chain.parse(technique):
        step = chain.build(link)
        if backend not in step.backends or phase not in step.phases:
            refusals.append(f"{link.name} has no {phase} on {backend}: {step.refusal}")
            return False
    return True


def _check(kind: str, name: str, known: Mapping[str, object]) -> None:
    if name not in known:
        raise UnknownName(kind, name, known)
