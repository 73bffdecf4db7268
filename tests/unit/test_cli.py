"""The command line as a user types it: exit codes, messages, and what a bad word leads to."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from pathlib import Path

import pytest

from leanmark import cli, registry, store
from leanmark.reading import carbon, tabulate
from leanmark.record import SCHEMA

from . import synthetic


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["leanmark", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    records = synthetic.records()
    with store.RunWriter.create(tmp_path / "results", records.run) as writer:
        for measurement in records.measurements:
            writer.append(measurement)
    return writer.path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "-w", "cnm"], "Unknown workload 'cnm'. Did you mean cnn?"),
        (["run", "-t", "int9"], "Unknown technique 'int9'. Did you mean int8"),
        (["run", "-t", "prune(ratioo=0.5)"], "Did you mean ratio?"),
        (["run", "-t", "prune(ratio=2)"], "ratio must lie between 0 and 1"),
        (["run", "-b", "onnx"], "Unknown backend 'onnx'. Did you mean onnxruntime or openvino?"),
        (["run", "--device", "gpu"], "Unknown device 'gpu': it is cpu or cuda, or cuda:N"),
        (["run", "--worklod", "cnn"], "Did you mean '--workload'?"),
        (["run", "--model", "a:b"], "--model and --data go together"),
        (["run", "--model", "a", "--data", "b:c"], "--model needs module:function, not 'a'"),
        (["run", "-w", "cnn", "--threads", "4096"], "4096 threads need 4096 cores"),
        (["run", "--model", "", "--data", ""], "--model needs module:function, not ''"),
        (["run", "--zone", "FRANZ"], "Unknown zone"),
        (["run", "--zone", "FRA", "--intensity", "50"], "not both"),
        (["run", "--intensity", "-3"], "is above 0 and at most 2000"),
        (["show", "nothing.jsonl"], "cannot read nothing.jsonl: No such file"),
        (["gate", "nothing.jsonl", "--fail-on", "worse:latency"], "cannot read nothing.jsonl"),
        (["rnu"], "Did you mean"),
        (["export", "prometeus"], "Unknown format 'prometeus'. Did you mean prometheus?"),
        (["export", "terminal"], "Unknown format 'terminal'"),
        (["export", "csv", "nothing.jsonl"], "cannot read nothing.jsonl: No such file"),
        (["export", "csv", "-o", "."], "'.' is a directory"),
        (["list", "workload"], "Unknown kind 'workload'. Did you mean workloads"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, *words) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_results_folder_that_cannot_be_written_is_refused_before_measuring(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    assert typed(monkeypatch, "run", "-w", "mlp", "--results", str(tmp_path / "taken")) == 1
    assert "cannot write results" in capsys.readouterr().err


def test_show_prints_the_newest_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: Path
) -> None:
    monkeypatch.chdir(recorded.parents[2])
    assert typed(monkeypatch, "show", "--zone", "FRA") == 0
    out = capsys.readouterr().out
    assert "cnn · inference · batch 1" in out
    assert "France (FRA)" in out


def test_a_terminal_without_unicode_gets_the_same_in_escapes(
    monkeypatch: pytest.MonkeyPatch, recorded: Path
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert typed(monkeypatch, "show", str(recorded)) == 0
    out.flush()
    shown = out.buffer.getvalue().decode()
    assert r" \xb7 inference \xb7 batch 1" in shown
    assert r"\xb5s" in shown


def test_records_without_a_comparison_are_no_pass(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with store.RunWriter.create(tmp_path, synthetic.records().run) as writer:
        path = writer.path
    assert typed(monkeypatch, "gate", str(path), "--fail-on", "worse:latency") == 2
    assert f"nothing to judge in {path}" in capsys.readouterr().err
    assert typed(monkeypatch, "show", str(path)) == 0
    assert "Nothing was measured." in capsys.readouterr().out


@pytest.fixture
def valid(recorded: Path) -> Path:
    """The same records without the case that is INVALID."""
    lines = recorded.read_text().splitlines(keepends=True)
    recorded.write_text("".join(line for line in lines if '"status":"invalid"' not in line))
    return recorded


def test_a_gate_that_passes_says_what_it_could_not_judge(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], valid: Path
) -> None:
    assert typed(monkeypatch, "gate", str(valid), "--fail-on", "worse:energy") == 0
    assert "gate: nothing is worse; 7 of 7 could not be judged" in capsys.readouterr().out
    assert typed(monkeypatch, "gate", str(valid), "--fail-on", "worse:accuracy=90%") == 0
    assert capsys.readouterr().out == "gate: nothing is worse\n"


def test_records_of_a_killed_run_are_not_conclusive(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], valid: Path
) -> None:
    valid.write_bytes(valid.read_bytes() + b'{"kind"')
    rule = ("gate", str(valid), "--fail-on", "worse:accuracy=90%")
    assert typed(monkeypatch, *rule) == 0
    assert "ends in the middle" in capsys.readouterr().err
    assert typed(monkeypatch, *rule, "--require-conclusive") == 4


def test_an_error_before_measuring_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert typed(monkeypatch, "run", "-w", "noop", "--threads", "4096", "--results", str(tmp_path)) == 2
    assert capsys.readouterr().err.startswith("leanmark: 4096 threads need 4096 cores")


def test_show_without_records_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert typed(monkeypatch, "show") == 2
    assert "run `leanmark run` first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(f'"schema":{SCHEMA}', '"schema":99'), "schema 99"),
        (lambda text: text.replace("measurement", "mesurement", 1), ":2: expected kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    recorded: Path,
    change: object,
    message: str,
) -> None:
    assert callable(change)
    text = change(recorded.read_text())
    recorded.write_text(text)
    assert typed(monkeypatch, "show", str(recorded)) == 1
    assert message in capsys.readouterr().err
    assert recorded.read_text() == text


def test_report_writes_both_pages_beside_the_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: Path
) -> None:
    assert typed(monkeypatch, "report", str(recorded)) == 0
    assert recorded.with_suffix(".md").read_text().startswith("# leanmark")
    assert "<table" in recorded.with_suffix(".html").read_text()


def test_a_full_disk_leaves_the_older_page_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: Path
) -> None:
    page = recorded.with_suffix(".md")
    page.write_text("older")

    def half(path: Path, text: str, encoding: str) -> int:
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    assert typed(monkeypatch, "report", str(recorded)) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert page.read_text() == "older"
    assert {one.suffix for one in recorded.parent.iterdir()} == {".md", ".jsonl"}


@pytest.mark.parametrize("name", ["csv", "github-action-benchmark", "bencher", "prometheus", "markdown"])
def test_export_writes_the_newest_run_and_says_what_has_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: Path, name: str
) -> None:
    monkeypatch.chdir(recorded.parents[2])
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(recorded.parents[2] / "summary.md"))
    before = sorted(recorded.parents[2].rglob("*"))
    assert typed(monkeypatch, "export", name) == 0
    shown = capsys.readouterr()
    tables = tabulate.build([store.load(recorded)], carbon.world_average())
    assert shown.out == registry.load("outputs", name)(tables)
    assert shown.err == "leanmark: 2 of 11 cases have no number: 1 invalid, 1 skipped\n"
    assert sorted(recorded.parents[2].rglob("*")) == before


def test_export_writes_a_file_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: Path, tmp_path: Path
) -> None:
    page, nowhere = tmp_path / "leanmark.prom", tmp_path / "no" / "leanmark.prom"
    assert typed(monkeypatch, "export", "prometheus", str(recorded), "-o", str(page)) == 0
    tables = tabulate.build([store.load(recorded)], carbon.world_average())
    assert page.read_text(encoding="utf-8") == registry.load("outputs", "prometheus")(tables)
    assert capsys.readouterr().out == ""
    assert typed(monkeypatch, "export", "prometheus", str(recorded), "-o", str(nowhere)) == 1
    assert f"cannot write {nowhere}: No such file or directory" in capsys.readouterr().err


def test_export_of_a_killed_run_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], valid: Path
) -> None:
    valid.write_bytes(valid.read_bytes() + b'{"kind"')
    assert typed(monkeypatch, "export", "csv", str(valid)) == 0
    assert "ends in the middle" in capsys.readouterr().err


def test_export_imports_no_torch_nor_what_pages_need(recorded: Path) -> None:
    script = (
        f"import sys\nsys.argv = ['leanmark', 'export', 'prometheus', {str(recorded)!r}]\n"
        "from leanmark import cli\ntry:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'jinja2'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_compare_of_a_run_with_itself_finds_no_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recorded: Path
) -> None:
    assert typed(monkeypatch, "compare", str(recorded), str(recorded)) == 0
    assert "1.00×" in capsys.readouterr().out


def test_list_names_everything_with_its_availability(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "list") == 0
    out = capsys.readouterr().out
    for name in ("transformer", "distill", "onnxruntime", "cpu", "codecarbon", "markdown"):
        assert name in out


def test_doctor_names_what_it_cannot_see(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "doctor") == 0
    assert "energy of the processor" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--help"], ["list"], ["show", "--help"], ["doctor"]])
def test_reading_and_asking_import_no_torch(words: list[str]) -> None:
    script = (
        f"import sys\nsys.argv = ['leanmark', *{words!r}]\nfrom leanmark import cli\n"
        "try:\n    cli.main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
