"""What scripts/validate makes of its lines: other tools' rules, tables, and going on after a stop."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts" / "validate"

STEADY = tuple(1.0 + 0.001 * (index % 7) for index in range(100))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of scripts/validate by name."""
    monkeypatch.syspath_prepend(SCRIPTS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def line(seed: int, verdict: str, **changes: object) -> dict[str, object]:
    return {
        "seed": seed,
        "units": 0,
        "neighbour": seed % 2 == 1,
        "verdict": verdict,
        "ratio": [0.99, 1.0, 1.01],
        "processes": 5,
        "pairs": 50,
        "seconds": 2.0,
        "findings": [],
        "gate": verdict == "worse",
        "confirmed": False,
        "rivals": {"another tool": "worse"},
        **changes,
    }


def test_a_mean_is_compared_to_five_percent(script: Any) -> None:
    rule = script("rivals").pytest_benchmark
    assert rule(STEADY, tuple(1.06 * value for value in STEADY)) == "worse"
    assert rule(STEADY, tuple(1.04 * value for value in STEADY)) == "none"
    assert rule(STEADY, tuple(0.94 * value for value in STEADY)) == "better"


def test_hyperfine_looks_at_the_spread_of_ten_runs(script: Any) -> None:
    rivals = script("rivals")
    slower = tuple(1.02 * value for value in STEADY)
    assert rivals.hyperfine(STEADY, slower) == rivals.welch(STEADY, slower) == "worse"
    noisy = tuple(value * (1 + 0.2 * (index // 10 % 2)) for index, value in enumerate(STEADY))
    assert rivals.hyperfine(noisy, tuple(1.02 * value for value in noisy)) == "none"
    assert rivals.welch(STEADY, STEADY) == "none"


def test_a_single_slow_moment_makes_a_mean_fail_and_leaves_the_rest(script: Any) -> None:
    hiccup = (*STEADY[:-1], 10.0)
    assert script("rivals").pytest_benchmark(STEADY, hiccup) == "worse"
    assert script("rivals").welch(STEADY, hiccup) == "none"


def test_false_alarms_are_counted_by_condition_with_their_interval(script: Any) -> None:
    lines = [line(seed, "same") for seed in range(99)] + [line(99, "worse")]
    table = list(script("tables").false_alarms(lines))
    assert table[0] == (
        "| identical code called better or worse | quiet, 50 contests | beside a busy core, 50 contests "
        "| all, 100 contests |"
    )
    assert table[2].startswith(
        "| leanmark, verdict at a margin of 2 % | 0.0 % [0.0, 7.1] | 2.0 % [0.4, 10.5] |"
    )
    assert "| leanmark, gate after confirmation | 0.0 %" in table[3]
    assert "| another tool | 100.0 %" in table[4]
    assert table[-1].startswith("Verdicts: 99 same, 1 worse. The 95 % interval holds 1 in 100.0 %")


def test_power_counts_what_was_called_worse_and_what_the_interval_holds(script: Any) -> None:
    found = [line(seed, "worse", units=50, truth=1.05, ratio=[1.04, 1.05, 1.06]) for seed in range(3)]
    missed = line(3, "inconclusive", units=50, truth=1.05, ratio=[1.0, 1.02, 1.04])
    table = list(script("tables").power([{"counted": {"50": 1.0501}}, *found, missed]))
    assert table[0] == "| slow-downs found | 5 %, 4 contests |"
    assert "| 75.0 % [" in table[2]
    assert table[4].startswith("| leanmark, 95 % interval holds the truth | 75.0 % [")
    assert "1.050 (1.05010)" in table[-1]


def test_a_journal_goes_on_where_it_was_stopped(script: Any, tmp_path: Path) -> None:
    journal = script("journal").Journal
    first = journal(tmp_path, "x", budget_s=2.0)
    first.append({"seed": 0})
    first.append({"seed": 1})
    first.path.write_text(first.path.read_text() + '{"se')  # killed while writing
    again = journal(tmp_path, "x", budget_s=2.0)
    assert [one["seed"] for one in again.lines] == [0, 1]
    again.append({"seed": 2})
    header, *lines = map(json.loads, again.path.read_text().splitlines())
    assert header["budget_s"] == 2.0
    assert [one["seed"] for one in lines] == [0, 1, 2]


def test_a_journal_begun_otherwise_is_not_mixed_with(script: Any, tmp_path: Path) -> None:
    journal = script("journal").Journal
    journal(tmp_path, "x", budget_s=2.0).append({"seed": 0})
    with pytest.raises(SystemExit, match="begun with other settings"):
        journal(tmp_path, "x", budget_s=3.0)
