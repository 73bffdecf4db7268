"""What dashboards are given: golden files, and that each format is what its reader takes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from leanmark import registry, store
from leanmark.errors import UsageError
from leanmark.reading import carbon, tabulate
from leanmark.reading.table import Table
from leanmark.record import Case, Measurement, Provenance
from leanmark.store import Records

from . import synthetic

Tables = tuple[Table, ...]

GOLDEN = Path(__file__).parents[1] / "golden"
FORMATS = {
    "csv": "export.csv",
    "github-action-benchmark": "github_action_benchmark.json",
    "bencher": "bencher.json",
    "prometheus": "export.prom",
}
DASHBOARDS = [name for name in FORMATS if name != "csv"]
FASTER = "cnn/inference/b1/prune(ratio=0.5)/eager/cpu/t1"
HOSTILE = 'my:T(a="b,c=\\n\n\\",d=#{}\\)'

NO_UNITS = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d", "j", "g", "gauge"}
"""What promlint calls abbreviated, and more."""

SAMPLE = re.compile(r'(leanmark_[a-z0-9_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (\S+)')
PLAIN = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


def written(format_: str, tables: Tables) -> str:
    text = registry.load("outputs", format_)(tables)
    assert isinstance(text, str)
    return text


def made(*measurements: Measurement, **changes: Any) -> Tables:
    records = Records(
        path=Path("synthetic.jsonl"), run=synthetic.run(**changes), measurements=tuple(measurements)
    )
    return tabulate.build([records], carbon.world_average())


def lines(tables: Tables) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written("csv", tables))))


def samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Every line of the exposition format that is a sample; refuses what Prometheus would."""
    for line in text.splitlines():
        if line.startswith("# "):
            continue
        match = SAMPLE.fullmatch(line)
        assert match, line
        labels = {
            name: re.sub(r"\\.", lambda found: PLAIN[found[0]], value)
            for name, value in LABEL.findall(match[2])
        }
        yield match[1], labels, float(match[3])


@pytest.fixture(scope="module")
def tables() -> Tables:
    return tabulate.build([synthetic.records()], carbon.world_average())


@pytest.fixture(scope="module")
def hostile() -> Tables:
    """A technique and reasons with everything that formats give a meaning to."""
    case = Case(workload="cnn", technique=HOSTILE)
    return made(
        *synthetic.passes(Case(workload="cnn"), 1e-3),
        *synthetic.passes(case, 5e-4),
        synthetic.stopped(replace(case, backend="onnxruntime"), "failed", HOSTILE),
        commit=HOSTILE,
    )


@pytest.mark.parametrize(("format_", "name"), FORMATS.items())
def test_each_format_is_its_golden_file(tables: Tables, format_: str, name: str) -> None:
    """``UPDATE_GOLDEN=1`` rewrites them; read the difference before committing."""
    text = written(format_, tables)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_line_of_csv_has_the_whole_number_and_what_it_is_over(tables: Tables) -> None:
    [line] = [
        one
        for one in lines(tables)
        if (one["technique"], one["backend"], one["phase"], one["metric"])
        == ("prune(ratio=0.5)", "eager", "inference", "latency_s")
    ]
    row = next(row for row in tables[0].rows if row.case.id == FASTER)
    assert row.latency and row.latency.comparison and row.latency.comparison.ratio
    assert row.latency.summary.interval
    assert float(line["value"]) == row.latency.summary.value
    assert float(line["low"]) == row.latency.summary.interval.low
    assert float(line["ratio_high"]) == row.latency.comparison.ratio.high
    assert (line["run"], line["machine"]) == ("7f3a", store.machine_slug(synthetic.environment()))
    assert (line["verdict"], line["baseline"], line["baseline_backend"]) == ("better", "fp32", "eager")
    assert (line["unit"], line["provenance"]) == ("s", "measured_counter")


def test_csv_says_why_a_case_or_a_pass_has_no_number(tables: Tables) -> None:
    empty = [one for one in lines(tables) if not one["value"]]
    told = {(one["technique"], one["metric"], one["status"], one["reason"]) for one in empty}
    assert ("int8", "", "skipped", "int8 runs in onnxruntime only") in told
    assert ("bf16", "", "invalid", "no operator computed in bfloat16 [0 of 8]") in told
    assert ("fp32", "energy_j", "ok", "skipped: the time budget ended") in told
    assert all(not one[name] for one in empty for name in ("low", "ratio", "verdict", "provenance"))


def test_an_estimate_has_a_name_of_its_own_and_no_ratio(tables: Tables) -> None:
    found = lines(tables)
    estimates = [one for one in found if one["provenance"] == Provenance.ESTIMATED_MODEL]
    assert {one["metric"] for one in estimates} == {"estimated_energy_j", "estimated_co2_g"}
    assert {one["ratio"] for one in estimates} == {""}
    assert not any(one["value"] for one in found if one["metric"] in ("energy_j", "co2_g"))
    names = {name for name, _, _ in samples(written("prometheus", tables))}
    assert "leanmark_estimated_energy_joules" in names
    assert not any("energy" in name and "estimated" not in name for name in names)
    assert "estimated" not in written("github-action-benchmark", tables)
    assert "estimated-energy-j" in json.loads(written("bencher", tables))[FASTER]


def test_energy_that_was_measured_is_a_smaller_is_better() -> None:
    case = Case(workload="cnn")
    timed, memory, energy = synthetic.passes(case, 1e-3)
    energy = replace(energy, series=(synthetic.single("energy_j", 0.25, "rapl", scope="machine"),))
    found = made(timed, memory, energy)
    entries = json.loads(written("github-action-benchmark", found))
    assert {"name": f"{case.id} energy_j", "value": 0.25, "unit": "J"} in entries


def test_github_action_benchmark_gets_what_its_schema_has(tables: Tables) -> None:
    entries = json.loads(written("github-action-benchmark", tables))
    names = [one["name"] for one in entries]
    assert len(set(names)) == len(names)
    for one in entries:
        assert one.keys() <= {"name", "value", "unit", "range", "extra"}
        assert isinstance(one["value"], float) and one["value"] > 0
        assert all(isinstance(one[key], str) for key in one.keys() - {"value"})
    assert {(one["name"].split()[-1], one["unit"]) for one in entries} == {
        ("latency_s", "s"),
        ("peak_memory_bytes", "B"),
        ("working_memory_bytes", "B"),
    }
    [faster] = [one for one in entries if one["name"] == f"{FASTER} latency_s"]
    assert faster["value"] == pytest.approx(187e-6 * 0.55, rel=0.02)
    assert faster["extra"].startswith("better: 0.5")
    assert faster["extra"].endswith("] of fp32 on eager")


def test_bencher_gets_what_its_schema_has(tables: Tables) -> None:
    found = json.loads(written("bencher", tables))
    for name, measures in found.items():
        assert len(name) <= 1024
        for slug, one in measures.items():
            assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug) and len(slug) <= 64
            assert {"value"} <= one.keys() <= {"value", "lower_value", "upper_value"}
            assert (
                one.get("lower_value", one["value"]) <= one["value"] <= one.get("upper_value", one["value"])
            )
    measures = found[FASTER]
    assert measures["latency"]["value"] == pytest.approx(187e3 * 0.55, rel=0.02)  # its unit is ns
    assert measures["accuracy"]["value"] == pytest.approx(433 / 450)
    assert measures["peak-memory-bytes"]["value"] == pytest.approx(190e6 + 11e6)


def test_prometheus_gets_a_family_at_a_time_and_no_timestamps(tables: Tables) -> None:
    text = written("prometheus", tables)
    assert text.endswith("\n")
    seen: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            assert len(line.split(" ", 3)[3]) > 10
            seen.append(line.split()[2])
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {seen[-1]} gauge"
        else:
            assert line.startswith(f"{seen[-1]}{{")
    assert len(set(seen)) == len(seen)
    found = list(samples(text))
    assert len({(name, *labels.items()) for name, labels, _ in found}) == len(found)
    assert not {part for name in seen for part in name.split("_")} & NO_UNITS
    assert not [name for name in seen if name.endswith(("_total", "_count", "_sum", "_bucket"))]


def test_prometheus_has_the_values_of_the_table(tables: Tables) -> None:
    row = next(row for row in tables[0].rows if row.case.id == FASTER)
    assert row.latency and row.latency.comparison and row.latency.comparison.ratio
    labels = {
        "workload": "cnn", "phase": "inference", "batch": "1", "device": "cpu", "threads": "1",
        "backend": "eager", "technique": "prune(ratio=0.5)",
    }  # fmt: skip
    found = {name: value for name, each, value in samples(written("prometheus", tables)) if each == labels}
    assert found["leanmark_latency_seconds"] == row.latency.summary.value
    assert found["leanmark_latency_ratio"] == row.latency.comparison.ratio.value
    assert found["leanmark_latency_upper_ratio"] == row.latency.comparison.ratio.high
    assert found["leanmark_working_memory_bytes"] == 11e6
    assert found["leanmark_model_parameters"] == 15_400


def test_promtool_accepts_it(tables: Tables, hostile: Tables) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    for each in (tables, hostile):
        text = written("prometheus", each)
        checked = subprocess.run(
            [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_what_people_write_stays_one_value(hostile: Tables) -> None:
    found = lines(hostile)
    assert {one["technique"] for one in found} == {"fp32", HOSTILE}
    assert {one["commit"] for one in found} == {HOSTILE}
    assert [one["reason"] for one in found if one["status"] == "failed"] == [HOSTILE]
    entries = json.loads(written("github-action-benchmark", hostile))
    assert f"cnn/inference/b1/{HOSTILE}/eager/cpu/t1 latency_s" in [one["name"] for one in entries]
    assert f"cnn/inference/b1/{HOSTILE}/eager/cpu/t1" in json.loads(written("bencher", hostile))
    told = [labels for _, labels, _ in samples(written("prometheus", hostile))]
    assert {one.get("technique") for one in told} == {None, "fp32", HOSTILE}
    assert {one["commit"] for one in told if "commit" in one} == {HOSTILE}


@pytest.mark.parametrize("format_", DASHBOARDS)
def test_dashboards_get_neither_sentinels_nor_another_commit(format_: str) -> None:
    case = Case(workload="cnn")
    found = made(
        *synthetic.passes(case, 1e-3),
        *synthetic.passes(replace(case, sentinel=True), 1e-3),
        *synthetic.passes(replace(case, commit="0ldc0de"), 1e-3),
    )
    text = written(format_, found)
    assert "again" not in text
    assert "0ldc0de/" not in text and 'technique="fp32@' not in text
    told = {(one["technique"], one["commit"]) for one in lines(found)}
    assert told == {("fp32", "1f2e3d4c5b6a"), ("fp32-again", "1f2e3d4c5b6a"), ("fp32", "0ldc0de")}


def test_a_ratio_to_another_commit_does_not_continue_that_to_the_baseline() -> None:
    case = Case(workload="cnn")
    found = made(*synthetic.passes(case, 1e-3), *synthetic.passes(replace(case, commit="0ldc0de"), 1e-3))
    assert any(one["ratio"] for one in lines(found))
    assert not any("ratio" in name for name, _, _ in samples(written("prometheus", found)))


@pytest.mark.parametrize("format_", DASHBOARDS)
def test_two_values_for_one_case_are_refused(tables: Tables, format_: str) -> None:
    with pytest.raises(UsageError, match="is in 2 of these records: export one run at a time"):
        written(format_, (*tables, *tables))


@pytest.mark.parametrize("format_", FORMATS)
def test_nothing_measured_is_an_empty_document(format_: str) -> None:
    text = written(format_, ())
    assert text in ("[]\n", "{}\n", "") or text.startswith("run,started,")
    assert len(text.splitlines()) <= 1


def test_tails_and_counts_are_told_too() -> None:
    def counted(technique: str, flops: float) -> list[Measurement]:
        timed, *others = synthetic.passes(Case(workload="cnn", technique=technique), 1e-3)
        series = (*timed.series, synthetic.single("flops", flops, "operators"))
        return [replace(timed, series=series, samples_s=(2e-3,) * 700), *others]

    found = made(*counted("fp32", 2e6), *counted("bf16", 2e6), *counted("distill", 1e6))
    told = {(one["technique"], one["metric"]): one for one in lines(found)}
    assert told["fp32", "latency_p99_s"]["value"] == "0.002"
    assert ("fp32", "latency_p999_s") not in told  # needs ten times as many steps
    flops = [told[technique, "flops"] for technique in ("fp32", "bf16", "distill")]
    assert [(one["value"], one["unit"], one["verdict"], one["ratio"]) for one in flops] == [
        ("2000000.0", "1", "", ""), ("2000000.0", "1", "same", ""), ("1000000.0", "1", "better", ""),
    ]  # fmt: skip
    names = {name for name, _, _ in samples(written("prometheus", found))}
    assert {"leanmark_latency_p99_seconds", "leanmark_flops"} <= names
    assert json.loads(written("bencher", found))["cnn/inference/b1/fp32/eager/cpu/t1"]["flops"] == {
        "value": 2e6
    }
    assert "p99" not in written("github-action-benchmark", found)


def test_csv_holds_several_runs() -> None:
    case = Case(workload="cnn")
    found = [*made(*synthetic.passes(case, 1e-3)), *made(*synthetic.passes(case, 2e-3), id="8a40")]
    latencies = {
        one["run"]: float(one["value"]) for one in lines(tuple(found)) if one["metric"] == "latency_s"
    }
    assert latencies.keys() == {"7f3a", "8a40"}
    assert latencies["8a40"] == pytest.approx(2 * latencies["7f3a"])
