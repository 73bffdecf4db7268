"""The table of training to a quality target, in the terminal, in Markdown and on the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from leanmark.reading import tabulate
from leanmark.reading.table import Table
from leanmark.record import Case, Finding, Measurement, Provenance
from leanmark.report import html, markdown, to_target
from leanmark.report.console import rendered
from leanmark.report.details import details
from leanmark.rival import Rival

from . import synthetic

FP32, BF16 = Case(workload="cnn"), Case(workload="cnn", technique="bf16")
FIVE = (1.0, 2.0, 3.0, 4.0, 5.0)
TITLE = "cnn · training to accuracy 97.0 % · cpu"


def tables(*made: Measurement) -> tuple[Table, ...]:
    """Those of a run with three contests of one workload, and training runs besides."""
    records = synthetic.records()
    return tabulate.build([replace(records, measurements=(*records.measurements, *made))])


def pair(before: Sequence[float], after: Sequence[float]) -> tuple[Table, ...]:
    return tables(synthetic.to_target(FP32, before), synthetic.to_target(BF16, after))


def rows(found: Sequence[Table]) -> list[list[str]]:
    """The cells of the only such table in Markdown, without its header."""
    text = markdown.render(found)
    assert text.count(f"## {TITLE}") == 1
    lines = text.partition(f"## {TITLE}")[2].partition("\n## ")[0].splitlines()
    cells = [
        [cell.strip().replace("\\", "") for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    return cells[2:]


def remarks(found: Sequence[Table]) -> list[str]:
    [section] = to_target.sections(found)
    return to_target.notes(section.rows)


def test_a_technique_has_one_row_whatever_its_contests_are() -> None:
    found = pair(FIVE, (0.5, 1.02, 1.5, 1.96, 2.5))
    # mean 3 and t(0.975, 4) * sqrt(2.5) / sqrt(5) = 1.96; 50 W
    assert rows(found) == [
        ["fp32", "3.00 s [1.04 s, 4.96 s]", "–", "150 J [51.8 J, 248 J]", "–", "–", "2 of 4", "5 of 5",
         "baseline"],
        ["bf16", "1.50 s [526 ms, 2.47 s]", "0.50× [0.49, 0.51]", "74.8 J [26.3 J, 123 J]",
         "0.50× [0.49, 0.51]", "–", "2 of 4", "5 of 5", "better · energy better"],
    ]  # fmt: skip


def test_few_seeds_have_a_range_and_say_how_to_get_more() -> None:
    found = pair((1.0, 2.0, 3.0), (0.5, 1.0, 1.5))
    assert [row[1:4] for row in rows(found)] == [
        ["2.00 s (1.00 s to 3.00 s)", "–", "100 J (50.0 J to 150 J)"],
        ["1.00 s (500 ms to 1.50 s)", "0.50×‡", "50.0 J (25.0 J to 75.0 J)"],
    ]
    assert rows(found)[1][-1] == "inconclusive"
    assert remarks(found) == [
        "bf16: time inconclusive: not enough seeds: 3 of the 5 that an interval needs; "
        "--profile full trains 5"
    ]


def test_a_target_that_was_not_reached_has_no_number() -> None:
    one = synthetic.to_target(BF16, (1.0, 2.0))
    runs = [
        {**each, "qualities": [0.5, quality]}
        for each, quality in zip(one.executed["runs"], (0.98, 0.9), strict=True)
    ]
    missed = replace(
        one, status="skipped", reason="not by 1 of 2", series=(), executed={**one.executed, "runs": runs}
    )
    found = tables(synthetic.to_target(FP32, (2.0,)), missed)
    assert rows(found)[0][1] == "2.00 s"  # one run has no range
    assert rows(found)[1] == ["bf16", "–", "–", "–", "–", "–", "2 of 4", "1 of 2", "not reached"]
    assert remarks(found)[0] == "bf16: skipped: not by 1 of 2"


def test_what_never_ran_says_why() -> None:
    found = tables(
        synthetic.to_target(FP32, FIVE),
        synthetic.stopped(BF16, "failed", "its accuracy was nan", "quality_run"),
    )
    assert rows(found)[1] == ["bf16", *["–"] * 7, "failed"]
    assert remarks(found)[0] == "bf16: failed: its accuracy was nan"


def test_doubts_and_what_the_meter_left_out_stand_below() -> None:
    fewer = Finding(code="fewer-quality-runs", message="2 of 5 training runs to the target were made")
    doubted = replace(synthetic.to_target(FP32, (1.0, 2.0)), findings=(fewer,))
    assert remarks(tables(doubted)) == ["fp32: 2 of 5 training runs to the target were made"]


def test_an_estimate_is_marked_and_has_no_ratio() -> None:
    def guessed(case: Case) -> Measurement:
        one = synthetic.to_target(case, FIVE)
        time, joules = one.series
        return replace(one, series=(time, replace(joules, provenance=Provenance.ESTIMATED_MODEL)))

    found = tables(guessed(FP32), guessed(BF16))
    assert [row[3:5] for row in rows(found)] == [["~150 J [51.8 J, 248 J]", "–"]] * 2
    assert rows(found)[1][-1] == "same"


def test_a_failed_sentinel_takes_these_verdicts_too() -> None:
    records = synthetic.records()
    again = replace(FP32, sentinel=True)
    slow = [one for one in synthetic.passes(again, 1.3 * 187e-6) if one.pass_name == "latency"]
    made = (*slow, synthetic.to_target(FP32, FIVE), synthetic.to_target(BF16, [each / 2 for each in FIVE]))
    found = tabulate.build([replace(records, measurements=(*records.measurements, *made))])
    assert rows(found)[1][2:] == [
        "0.50× [0.50, 0.50]",
        *rows(found)[1][3:-1],
        "inconclusive · energy inconclusive",
    ]
    assert any(line.startswith("bf16: time inconclusive: the A/A sentinel failed") for line in remarks(found))


THERE = replace(FP32, commit="0123456789ab")


def against(*made: Measurement) -> tuple[Table, ...]:
    """Of a run against another commit, in which the unchanged model was timed at both."""
    timed = [one for case in (THERE, FP32) for one in synthetic.passes(case, 1e-3)]
    rival = Rival(ref="main", commit="0123456789ab")
    records = replace(synthetic.records(), run=synthetic.run(against=rival))
    return tabulate.build([replace(records, measurements=(*timed, *made))])


def test_this_tree_is_compared_to_the_other_commit() -> None:
    faster = (0.5, 1.02, 1.5, 1.96, 2.5)
    found = against(synthetic.to_target(FP32, faster), synthetic.to_target(THERE, FIVE))
    before, after = rows(found)
    assert [before[0], before[2], before[-1]] == ["fp32@0123456789ab", "–", "baseline"]
    assert [after[0], after[2], after[4], after[-1]] == [
        "fp32", "0.50× [0.49, 0.51]", "0.50× [0.49, 0.51]", "better · energy better"
    ]  # fmt: skip
    told = dict(details(found[0].rows[1]))
    assert "; 0.50× [0.49, 0.51] of fp32@0123456789ab's, better;" in told["Training to accuracy 97.0 %"]
    for width in (80, 160):
        assert "[0.49, 0.51]" in rendered(found, width, color=False).partition(TITLE)[2]
    assert "<small>[0.49, 0.51]</small>" in html.render(found).partition(TITLE)[2]


def test_a_technique_is_compared_to_the_same_at_the_other_commit() -> None:
    there = replace(BF16, commit="0123456789ab")
    sides = {FP32: 3.0, THERE: 5.0, BF16: 2.0, there: 1.0}
    found = against(
        *(synthetic.to_target(case, [scale * each for each in FIVE]) for case, scale in sides.items())
    )
    told = {row[0]: (row[2], row[-1]) for row in rows(found)}
    assert told["bf16"] == ("2.00× [2.00, 2.00]", "worse · energy worse")
    assert told["bf16@0123456789ab"] == ("–", "baseline")


def test_too_few_seeds_of_two_commits_say_so() -> None:
    found = against(synthetic.to_target(FP32, (1.0, 2.0)), synthetic.to_target(THERE, (2.0, 4.0)))
    assert rows(found)[1][2:5] == ["0.50×‡", "75.0 J (50.0 J to 100 J)", "0.50×‡"]
    assert rows(found)[1][-1] == "inconclusive"
    assert (
        "fp32: time inconclusive: not enough seeds: 2 of the 5 that an interval needs; "
        "--profile full trains 5"
    ) in remarks(found)


def test_a_target_that_only_the_other_commit_missed_leaves_no_ratio_and_says_why() -> None:
    missed = replace(synthetic.to_target(THERE, FIVE), status="skipped", reason="not by 1 of 5", series=())
    found = against(synthetic.to_target(FP32, FIVE), missed)
    assert (rows(found)[1][2], rows(found)[1][-1]) == ("–", "inconclusive")
    assert f"fp32: time inconclusive: {missed.case.id}: not by 1 of 5" in remarks(found)


def test_commits_that_trained_other_work_have_no_ratio() -> None:
    other = replace(synthetic.to_target(THERE, FIVE), work="another recipe")
    found = against(synthetic.to_target(FP32, FIVE), other)
    assert (rows(found)[1][2], rows(found)[1][-1]) == ("–", "baseline")


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_shows_it_whole_at_any_width(width: int) -> None:
    text = rendered(pair(FIVE, (0.5, 1.02, 1.5, 1.96, 2.5)), width, color=False)
    assert text.count(TITLE) == 1
    assert max(len(line) for line in text.splitlines()) <= width
    shown = text.partition(TITLE)[2]
    assert "…" not in shown
    for part in ("3.00 s", "[526 ms, 2.47 s]", "[0.49, 0.51]", "74.8 J", "energy better", "5 of 5", " bf16"):
        assert part in shown


def test_the_page_has_a_table_of_its_own_and_the_sentence_that_explains_it() -> None:
    text = html.render(pair(FIVE, (0.5, 1.02, 1.5, 1.96, 2.5)))
    shown = text.partition(f"{TITLE}</h2>")[2].partition("</section>")[0]
    for part in (
        "Per training run, over seeds.",
        "CO₂e</th>",
        "<small>[0.49, 0.51]</small>",
        "energy better",
    ):
        assert part in shown
    assert to_target.READING in text


def test_without_such_runs_nothing_is_said_of_them() -> None:
    text = markdown.render(tables())
    assert "training to" not in text
    assert to_target.READING not in text


def test_runs_that_ended_before_the_contests_began_are_told() -> None:
    made = synthetic.to_target(FP32, FIVE), synthetic.to_target(BF16, FIVE)
    found = tabulate.build([replace(synthetic.records(), measurements=made)])
    assert [row[1] for row in rows(found)] == ["3.00 s [1.04 s, 4.96 s]"] * 2
    assert [row.verdict for row in found[0].rows] == ["baseline", "not measured"]
