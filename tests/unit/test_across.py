"""Training to a quality target in two stored runs, as `compare` and `gate --since` see it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from leanmark.errors import NotComparable
from leanmark.reading import across, gate
from leanmark.reading.compare import pairing
from leanmark.record import DOMAIN_LOST, Case, Comparison, Finding, Measurement
from leanmark.report import listing
from leanmark.store import Records

from . import synthetic

CASE = Case(workload="mlp", technique="bf16", phase="training")
OTHER = replace(CASE, technique="prune")
FAST = (1.0, 1.1, 0.9, 1.05, 0.95)
SLOW = tuple(
    2 * each * math.exp(off) for each, off in zip(FAST, (0.05, -0.05, 0.02, -0.02, 0.0), strict=True)
)
COMPARISONS = 200


def run(seconds: Sequence[float], *, id: str = "7f3a", target: float = 0.97) -> Records:
    """A run that trained to ``target`` in so many seconds."""
    measurement = synthetic.to_target(CASE, seconds, run=id, target=target)
    path = Path(f"{id}.jsonl")
    return Records(path=path, run=synthetic.run(id=id), measurements=(measurement,), findings=())


def found(older: Records, newer: Records) -> dict[str, Comparison]:
    return {one.metric: one for one in across.compare_runs(older, newer)}


def with_seeds(records: Records, seeds: Iterable[int]) -> Records:
    """The same values from runs of other ``seeds``."""
    [one] = records.measurements
    series = tuple(
        replace(
            each,
            blocks=tuple(replace(b, process=seed) for b, seed in zip(each.blocks, seeds, strict=True)),
        )
        for each in one.series
    )
    return replace(records, measurements=(replace(one, series=series),))


def printed(older: Records, newer: Records) -> str:
    """What `leanmark compare` prints."""
    out = io.StringIO()
    rest = across.uncompared(older, newer)
    listing.comparisons(across.compare_runs(older, newer), rest, Console(file=out, width=220))
    return out.getvalue()


def rulings(older: Records, newer: Records, text: str) -> list[tuple[str, str, str | None]]:
    return [(one.rule.metric, one.verdict, one.reason) for one in gate.since(older, newer, gate.parse(text))]


def test_five_seeds_on_both_sides_give_a_ratio_with_an_interval() -> None:
    compared = found(run(FAST), run(SLOW, id="8a4b"))
    assert list(compared) == ["run_to_quality_s", "run_to_quality_j"]
    for one in compared.values():
        assert one.ratio is not None
        assert one.ratio.value == pytest.approx(2.0)
        # the log-ratios are ln 2 + (0.05, -0.05, 0.02, -0.02, 0): sd 0.0381, so exp(±2.776 * 0.0381 / sqrt 5)
        assert (one.ratio.low, one.ratio.high) == pytest.approx((1.9077, 2.0968), abs=1e-4)
        assert (one.ratio.scope, one.verdict, one.pairs) == ("across-processes", "worse", 5)


def test_other_seeds_are_two_samples() -> None:
    """One seed of five is another: which runs would belong together?"""
    compared = found(run(FAST), with_seeds(run(SLOW, id="8a4b"), (0, 1, 2, 3, 5)))["run_to_quality_s"]
    assert compared.ratio is not None
    assert compared.ratio.method.startswith("Welch")
    assert (compared.ratio.low, compared.ratio.high) == pytest.approx((1.8011, 2.2209), abs=1e-4)
    assert (compared.pairs, pairing(compared)) == (0, "unpaired: the seeds differ")


@pytest.mark.parametrize("shared", [0.3, 0.0])
def test_pairs_by_seed_and_samples_of_other_seeds_cover_the_truth(shared: float) -> None:
    """And pairs are the narrower ones where the seed explains the spread."""
    draw = np.random.default_rng(7)

    def seconds(by_seed: np.ndarray) -> tuple[float, ...]:
        return tuple(np.exp(by_seed + draw.normal(0, 0.1, 5)))

    covered, widths = {"paired": 0, "unpaired": 0}, {"paired": 0.0, "unpaired": 0.0}
    for _ in range(COMPARISONS):
        seeds, others = draw.normal(0, shared, (2, 5))
        older = run(seconds(seeds))
        newer = {
            "paired": run(seconds(seeds + math.log(1.3)), id="8a4b"),
            "unpaired": with_seeds(run(seconds(others + math.log(1.3)), id="8a4b"), range(5, 10)),
        }
        for how, one in newer.items():
            ratio = found(older, one)["run_to_quality_s"].ratio
            assert ratio is not None
            covered[how] += ratio.low <= 1.3 <= ratio.high
            widths[how] += math.log(ratio.high / ratio.low) / COMPARISONS
    for how, count in covered.items():
        assert count / COMPARISONS == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / COMPARISONS)), how
    narrower = 2 if shared else 0.8  # where it explains nothing, pairs cost half of the degrees of freedom
    assert widths["unpaired"] / widths["paired"] > narrower


def test_fewer_seeds_give_neither_ratio_nor_verdict() -> None:
    compared = found(run(FAST), run(SLOW[:3], id="8a4b"))["run_to_quality_s"]
    assert (compared.ratio, compared.verdict) == (None, "inconclusive")
    assert compared.reason == "not enough seeds: 3 of the 5 that an interval needs"


def test_other_targets_are_not_compared() -> None:
    compared = found(run(FAST), run(SLOW, id="8a4b", target=0.9))["run_to_quality_s"]
    assert (compared.ratio, compared.verdict) == (None, "inconclusive")
    assert compared.reason == "trained to different targets: 0.97 and 0.9"


def test_energies_of_other_parts_of_the_machine_are_not_compared() -> None:
    newer = run(SLOW, id="8a4b")
    lost = Finding(code=DOMAIN_LOST, message="it is stuck", without="package-0/dram")
    part = replace(newer, measurements=(replace(newer.measurements[0], findings=(lost,)),))
    compared = found(run(FAST), part)
    assert compared["run_to_quality_s"].verdict == "worse"
    assert compared["run_to_quality_j"].reason == (
        "the energies are not of the same parts: its own is without package-0/dram"
    )


def test_a_gate_judges_it_by_the_rules_about_latency_and_energy() -> None:
    older, newer = run(FAST), run(SLOW, id="8a4b")
    assert rulings(older, newer, "worse:latency,memory,energy") == [
        ("latency", "worse", "training to its target: paired by seed: ratio 2.00× [1.91, 2.10]"),
        ("energy", "worse", "training to its target: paired by seed: ratio 2.00× [1.91, 2.10]"),
    ]
    assert rulings(older, newer, "worse:latency=99%") == [
        ("latency", "inconclusive", "training to its target: paired by seed: ratio 2.00× [1.91, 2.10]")
    ]
    assert rulings(newer, older, "worse:energy") == [
        ("energy", "better", "training to its target: paired by seed: ratio 0.50× [0.48, 0.52]")
    ]
    assert rulings(older, newer, "worse:memory") == []
    [(_, verdict, reason)] = rulings(older, run(SLOW[:4], id="8a4b"), "worse:latency")
    assert verdict == "inconclusive"
    assert reason == "training to its target: not enough seeds: 4 of the 5 that an interval needs"


def test_a_target_that_is_no_longer_reached_is_told() -> None:
    newer = run(SLOW, id="8a4b")
    missed = replace(newer.measurements[0], status="skipped", reason="97 % was not reached", series=())
    newer = replace(newer, measurements=(missed,))
    compared = found(run(FAST), newer)["run_to_quality_s"]
    assert (compared.ratio, compared.verdict) == (None, "inconclusive")
    assert compared.reason == f"{CASE.id}: 97 % was not reached"
    [(_, verdict, reason)] = rulings(run(FAST), newer, "worse:latency")
    assert (verdict, reason) == ("inconclusive", f"training to its target: {compared.reason}")


def test_a_run_that_failed_this_time_is_invalid() -> None:
    newer = run(SLOW, id="8a4b")
    failed = replace(newer.measurements[0], status="failed", reason="its accuracy was nan", series=())
    newer = replace(newer, measurements=(failed, synthetic.to_target(OTHER, SLOW, run="8a4b")))
    older = run(FAST)
    older = replace(older, measurements=(*older.measurements, synthetic.to_target(OTHER, FAST)))
    assert rulings(older, newer, "worse:latency") == [
        ("latency", "invalid", "training to its target: failed: its accuracy was nan"),
        ("latency", "worse", "training to its target: paired by seed: ratio 2.00× [1.91, 2.10]"),
    ]


def test_a_training_run_that_failed_takes_no_verdict_from_the_latency_of_that_case() -> None:
    """Its case is that of one step of training in batches of one."""
    trained = synthetic.to_target(CASE, FAST)
    fast, slow = (
        replace(trained, pass_name="latency", series=(synthetic.latency(value),)) for value in (1.0, 2.0)
    )
    failed = replace(trained, status="failed", reason="its accuracy was nan", series=())
    older = replace(run(FAST), measurements=(fast, trained))
    newer = replace(run(FAST, id="8a4b"), measurements=(replace(slow, run="8a4b"), failed))
    assert rulings(older, newer, "worse:latency") == [
        ("latency", "invalid", "training to its target: failed: its accuracy was nan"),
        ("latency", "worse", "ratio 2.00× [1.99, 2.01]"),
    ]


def test_runs_whose_only_common_case_failed_this_time_say_why() -> None:
    newer = run(SLOW, id="8a4b")
    failed = replace(newer.measurements[0], status="failed", reason="its accuracy was nan", series=())
    newer = replace(newer, measurements=(failed,))
    assert rulings(run(FAST), newer, "worse:latency,flops") == [
        ("latency", "invalid", "training to its target: failed: its accuracy was nan"),
        ("flops", "invalid", "training to its target: failed: its accuracy was nan"),
    ]
    with pytest.raises(NotComparable, match="no measured case in common"):
        rulings(run(FAST), replace(newer, measurements=()), "worse:latency")


def test_too_wide_an_interval_says_how_many_seeds_would_do() -> None:
    noisy = run((1.0, 1.6, 0.7, 1.3, 1.05), id="8a4b")
    compared = found(run(FAST), noisy)["run_to_quality_s"]
    assert compared.verdict == "inconclusive"
    assert str(compared.reason).startswith("5 seeds seen, about ")


def test_compare_says_how_training_runs_were_compared() -> None:
    older, newer = run(FAST), run(SLOW, id="8a4b")
    assert printed(older, newer).count("paired by seed") == 2
    assert printed(older, with_seeds(newer, range(1, 6))).count("unpaired: the seeds differ") == 2


def test_compare_tells_what_the_other_run_lost_and_why() -> None:
    timed = replace(synthetic.to_target(OTHER, FAST), pass_name="latency", series=(synthetic.latency(1.0),))
    metered = replace(timed, pass_name="energy", series=())
    older = replace(run(FAST), measurements=(*run(FAST).measurements, timed, metered))
    lost = (
        replace(timed, run="8a4b", status="invalid", reason="ran in float32", series=()),
        replace(metered, run="8a4b", status="skipped", reason="the time budget ended"),
    )
    newer = run(SLOW, id="8a4b")
    text = printed(older, replace(newer, measurements=(*newer.measurements, *lost)))
    assert text.splitlines()[-2:] == [
        "not compared",
        f"{OTHER.id}: in B invalid: ran in float32",
    ]
    failed = replace(newer.measurements[0], status="failed", reason="its accuracy was nan", series=())
    text = printed(run(FAST), replace(newer, measurements=(failed,)))
    assert f"{CASE.id}: training to its target: in B failed: its accuracy was nan" in text
    assert failed.reason is not None
    assert failed.reason not in printed(older, newer)


def steps(technique: str, *, run: str = "7f3a", **changes: Any) -> list[Measurement]:
    """The latency and energy passes of one case of a step."""
    case = replace(CASE, technique=technique, phase="inference")
    passes = [one for one in synthetic.passes(case, 1e-3) if one.pass_name != "memory"]
    return [replace(one, run=run, **changes) for one in passes]


def test_compare_tells_everything_that_it_does_not_compare() -> None:
    failed: dict[str, Any] = {"status": "failed", "reason": "killed", "series": ()}
    slow: dict[str, Any] = {"status": "skipped", "reason": "no time", "series": ()}
    timed, metered = steps("bf16")
    older = [timed, metered, *steps("prune"), *steps("int8", **failed), *steps("tf32", **slow), *steps("w8")]
    unmetered = replace(metered, run="8a4b", **slow)
    newer = [
        replace(timed, run="8a4b"), unmetered, *steps("prune", run="8a4b", **failed),
        *steps("int8", run="8a4b"), *steps("tf32", run="8a4b", **slow), *steps("fp16", run="8a4b", **failed),
    ]  # fmt: skip
    a, b = (
        replace(run(FAST, id=id), measurements=tuple(made)) for id, made in (("7f3a", older), ("8a4b", newer))
    )
    assert {case.technique: reason for case, reason in across.uncompared(a, b)} == {
        "bf16": "energy: in B skipped: no time",
        "prune": "in B failed: killed",
        "int8": "in A failed: killed",
        "tf32": "in both skipped: no time",
        "w8": "only in A",
        "fp16": "only in B, failed: killed",
    }
    assert list(across.uncompared(a, a)) == [
        (older[4].case, "in both failed: killed"),
        (older[6].case, "in both skipped: no time"),
    ]


def test_many_cases_with_one_reason_are_counted() -> None:
    older = replace(run(FAST), measurements=tuple(steps("fp32") + steps("bf16", status="ok")))
    more = [one for ratio in range(1, 9) for one in steps(f"prune(ratio=0.{ratio})", run="8a4b")]
    newer = replace(run(FAST, id="8a4b"), measurements=tuple(steps("fp32", run="8a4b") + more))
    last = printed(older, newer).partition("only in A")[2]
    assert last.count("mlp/inference/b1/prune") == 6
    assert last.endswith(" and 2 more: only in B\n")


def test_energy_that_only_one_run_has_is_told() -> None:
    newer = run(SLOW, id="8a4b")
    [one] = newer.measurements
    newer = replace(newer, measurements=(replace(one, series=one.series[:1]),))
    assert list(across.uncompared(run(FAST), newer)) == [
        (CASE, "training to its target: run_to_quality_j only in A")
    ]


def test_runs_without_a_common_number_say_why() -> None:
    older = replace(run(FAST), measurements=tuple(steps("bf16") + steps("w8")))
    skipped = steps("bf16", run="8a4b", status="skipped", reason="no time", series=())
    newer = replace(run(FAST, id="8a4b"), measurements=tuple(skipped + steps("prune", run="8a4b")))
    with pytest.raises(
        NotComparable, match=r"in common; mlp/inf.*/bf16/eager/cpu/t1: in B skipped: no time$"
    ):
        across.compare_runs(older, newer)
