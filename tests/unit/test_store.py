import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import store
from leanmark.errors import CorruptRecords, NewerSchema, RecordError, UnwritableResults
from leanmark.record import SCHEMA, Cost, Provenance

from . import synthetic


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A results file with every measurement of the synthetic run."""
    with store.RunWriter.create(tmp_path, synthetic.run()) as writer:
        for measurement in synthetic.measurements():
            writer.append(measurement)
    return writer.path


def rewrite(path: Path, number: int, change: Callable[[bytes], bytes]) -> None:
    """Change one line, counted from 1, of a results file; ``change`` maps bytes to bytes."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"".join(lines))


def test_what_was_written_is_read(written: Path) -> None:
    records = store.load(written)
    assert records.run == synthetic.run()
    assert records.measurements == tuple(synthetic.measurements())
    assert records.findings == ()


def test_no_estimate_is_where_measurements_are(tmp_path: Path) -> None:
    cost = Cost(time_s=2.0, energy_j=7.0, energy_provenance=Provenance.ESTIMATED_MODEL, build_j=1.0)
    made = replace(synthetic.measurements()[0], cost=cost)
    metered = synthetic.passes(made.case, 1e-3)[2]
    measured = replace(metered, series=(replace(metered.series[0], provenance=Provenance.MEASURED_COUNTER),))
    with store.RunWriter.create(tmp_path, synthetic.run()) as writer:
        for one in (made, metered, measured):
            writer.append(one)
    _, *lines = map(json.loads, writer.path.read_text().splitlines())
    assert "energy_j" not in lines[0]["cost"]
    assert (lines[0]["cost"]["estimated_energy_j"], lines[0]["cost"]["estimated_build_j"]) == (7.0, 1.0)
    assert (lines[1]["series"], [one["metric"] for one in lines[1]["estimates"]]) == ([], ["energy_j"])
    assert "estimates" not in lines[2]
    assert store.load(writer.path).measurements == (made, metered, measured)


def test_files_of_schema_1_have_estimates_among_the_others(written: Path) -> None:
    """As all were written until November 2026."""

    def older(line: bytes) -> bytes:
        fields = json.loads(line)
        fields["series"] = [*fields["series"], *fields.pop("estimates", [])]
        return json.dumps(fields).encode() + b"\n"

    rewrite(written, 1, lambda line: json.dumps({**json.loads(line), "schema": 1}).encode() + b"\n")
    for number in range(2, 2 + len(synthetic.measurements())):
        rewrite(written, number, older)
    assert store.load(written).measurements == tuple(synthetic.measurements())


def test_estimates_that_are_no_list_are_refused(written: Path) -> None:
    rewrite(written, 2, lambda line: json.dumps({**json.loads(line), "estimates": 5}).encode() + b"\n")
    with pytest.raises(CorruptRecords, match=r"\.jsonl:2: Expected `array`, got `int`"):
        store.load(written)


def test_the_path_names_the_machine_and_the_run(written: Path, tmp_path: Path) -> None:
    slug = store.machine_slug(synthetic.environment())
    assert written == tmp_path / slug / "7f3a.jsonl"
    with store.RunWriter.create(tmp_path, synthetic.run(id="20260301T00:00:00Z/b")) as writer:
        assert writer.path == tmp_path / slug / "20260301T000000Zb.jsonl"


@pytest.mark.parametrize(
    ("machine", "slug"),
    [
        ({"cpu": "AMD EPYC 9R14"}, "amd-epyc-9r14-2c-24g-"),
        ({"cpu": "Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz"}, "intel-xeon-platinum-8488c-2c-24g-"),
        ({"cpu": "AMD EPYC 7763 64-Core Processor", "memory_gib": None}, "amd-epyc-7763-2c-"),
        ({"cpu": None}, "machine-2c-24g-"),
        ({"cpu": "AMD EPYC 9R14", "gpu": "NVIDIA H200"}, "amd-epyc-9r14-2c-24g-nvidia-h200-"),
    ],
)
def test_a_machine_has_a_readable_folder(machine: dict[str, str | None], slug: str) -> None:
    environment = synthetic.environment(**machine)
    assert store.machine_slug(environment) == slug + environment.machine_id[:6]


def test_each_line_is_on_disk_before_append_returns(tmp_path: Path) -> None:
    with store.RunWriter.create(tmp_path, synthetic.run()) as writer:
        for count, measurement in enumerate(synthetic.measurements()[:3], start=1):
            writer.append(measurement)
            assert len(store.load(writer.path).measurements) == count


def test_a_file_is_never_overwritten(written: Path, tmp_path: Path) -> None:
    before = written.read_bytes()
    with pytest.raises(UnwritableResults, match="exists already"):
        store.RunWriter.create(tmp_path, synthetic.run())
    assert written.read_bytes() == before


def test_a_folder_that_cannot_be_is_refused_before_measuring(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(UnwritableResults, match=r"cannot write results to .*results: File exists"):
        store.check_writable(tmp_path / "results")
    with pytest.raises(UnwritableResults, match="cannot write results"):
        store.RunWriter.create(tmp_path / "results" / "below", synthetic.run())


def test_checking_a_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    store.check_writable(tmp_path / "new" / "results")
    assert list((tmp_path / "new" / "results").iterdir()) == []


def test_a_full_disk_is_named_and_ends_the_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = store.RunWriter.create(tmp_path, synthetic.run())
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(descriptor: int) -> None:
        raise full

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UnwritableResults, match="No space left on device; what was measured before is kept"):
        writer.append(synthetic.measurements()[0])
    with pytest.raises(UnwritableResults, match="No space left on device"):
        store.check_writable(tmp_path)
    monkeypatch.undo()
    with pytest.raises(UnwritableResults, match="Bad file descriptor"):
        writer.append(synthetic.measurements()[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    bad = replace(synthetic.measurements()[0], executed={"error": value})
    with store.RunWriter.create(tmp_path, synthetic.run()) as writer:
        with pytest.raises(RecordError, match=r"measurement cnn/.* cannot be stored: Out of range float"):
            writer.append(bad)
        writer.append(synthetic.measurements()[1])
    assert store.load(writer.path).measurements == (synthetic.measurements()[1],)


def test_a_value_json_has_no_word_for_is_refused(tmp_path: Path) -> None:
    bad = replace(synthetic.measurements()[0], executed={"step": object()})
    with (
        store.RunWriter.create(tmp_path, synthetic.run()) as writer,
        pytest.raises(RecordError, match="cannot be stored"),
    ):
        writer.append(bad)


@pytest.mark.parametrize(
    ("number", "old", "new", "complaint"),
    [
        (
            1,
            '"kind":"run"',
            '"kind":"ran"',
            "expected kind 'run', found 'ran'; a results file begins",
        ),
        (2, '{"kind"', '["kind"', "not a JSON object"),
        (3, '"status":"ok"', '"status":"fine"', "Invalid enum value 'fine'"),
        (3, '"run":"7f3a"', '"run":"beef"', "belongs to run beef, the file to 7f3a"),
        (4, '"parameters":', '"parameters":1.5,"was":', "Expected `int`"),
        (4, '"parameters":', '"parameters":NaN,"was":', "not a JSON object"),
        (9, '"loops":50', '"loops":0', "Block.loops must be at least 1, not 0"),
    ],
)
def test_a_corrupt_line_is_named(written: Path, number: int, old: str, new: str, complaint: str) -> None:
    rewrite(written, number, lambda line: line.replace(old.encode(), new.encode()))
    with pytest.raises(CorruptRecords, match=rf"{written.name}:{number}: .*{complaint}"):
        store.load(written)


def test_the_line_a_killed_run_was_writing_is_forgiven(written: Path) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[:-50])
    records = store.load(written)
    assert records.measurements == tuple(synthetic.measurements()[:-1])
    assert [finding.code for finding in records.findings] == ["truncated_line"]


@pytest.mark.parametrize("content", [b"", b'{"kind":"run"'])
def test_a_file_without_a_run_is_no_results_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(CorruptRecords, match="no complete line"):
        store.load(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="No such file"):
        store.load(tmp_path / "none.jsonl")


def test_a_newer_schema_names_both_versions(written: Path) -> None:
    newer = SCHEMA + 1
    rewrite(written, 1, lambda line: json.dumps({**json.loads(line), "schema": newer}).encode() + b"\n")
    with pytest.raises(NewerSchema, match=rf"schema {newer} .*reads up to schema {SCHEMA}"):
        store.load(written)


def test_the_newest_run_comes_first_whatever_the_machine(tmp_path: Path) -> None:
    runs = [
        synthetic.run(id="20260101T000000Z-c"),
        synthetic.run(id="20260301T000000Z-a", environment=synthetic.environment(cores=64)),
        synthetic.run(id="20260201T000000Z-b"),
    ]
    for run in runs:
        store.RunWriter.create(tmp_path, run).close()
    assert [path.stem[-1] for path in store.find(tmp_path)] == ["a", "b", "c"]
    assert store.find(tmp_path / "nowhere") == []
