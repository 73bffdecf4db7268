"""Results on disk: one append-only JSONL file per run, one folder per machine.

``<results>/<machine slug>/<run id>.jsonl`` holds a ``run`` line, then one ``measurement`` line
each. A line is flushed to the disk before the next measurement begins, so that a killed run loses at most
the one it was making.

Estimates have keys of their own there, so that nobody who reads a file takes one for a measurement; once read
they are told apart by their provenance.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import msgspec

from leanmark.errors import CorruptRecords, NewerSchema, RecordError, UnreadableRecords, UnwritableResults
from leanmark.record import SCHEMA, Environment, Finding, Measurement, Provenance, Run

Kind = Literal["run", "measurement"]
T = TypeVar("T")

_JOULES = ("energy_j", "build_j")

_PROBE = b"leanmark" * 2**13
"""64 KiB: room for a short run; a disk that cannot take it is full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """One results file, read. ``findings`` are doubts about the file itself."""

    path: Path
    run: Run
    measurements: tuple[Measurement, ...]
    findings: tuple[Finding, ...] = ()


class RunWriter:
    """Appends the measurements of one run. Made by :meth:`create`; a context manager."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def create(cls, results: Path, run: Run) -> RunWriter:
        """Start a new file for ``run``; never overwrites one.

        Raises:
            UnwritableResults: the folder cannot be written, the disk is full, or the file exists.
        """
        check_writable(results)
        path = results / machine_slug(run.environment) / f"{_plain(run.id)}.jsonl"
        line = encode("run", run)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError as error:
            raise UnwritableResults(f"{path} exists already; records are never overwritten") from error
        except OSError as error:
            raise _unwritable(path, error) from error
        writer = cls(path, descriptor)
        writer._write(line)
        return writer

    def append(self, measurement: Measurement) -> None:
        """Write one measurement; when this returns, it is on the disk.

        Raises:
            RecordError: it holds a number that is not finite, or a value JSON has no word for.
            UnwritableResults: the disk is full or gone.
        """
        try:
            self._write(encode("measurement", measurement))
        except UnwritableResults as error:
            raise UnwritableResults(f"{error}; what was measured before is kept there") from error

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _write(self, line: bytes) -> None:
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            self.close()  # a second append would land behind half a line
            raise _unwritable(self.path, error) from error


def check_writable(results: Path) -> None:
    """Make the folder and prove that it takes data.

    Raises:
        UnwritableResults: it does not; the message says why.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=results, prefix=".probe-") as probe:
            probe.write(_PROBE)
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise _unwritable(results, error) from error


def encode(kind: Kind, record: Run | Measurement) -> bytes:
    """``record`` as one line of JSON, tagged with its ``kind``.

    Raises:
        RecordError: a number is not finite, or a value is none that JSON knows.
    """
    try:
        fields = _estimates_apart({"kind": kind, **msgspec.to_builtins(record)})
        text = json.dumps(fields, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        name = record.case.id if isinstance(record, Measurement) else record.id
        raise RecordError(f"{kind} {name} cannot be stored: {error}") from error
    return text.encode() + b"\n"


def load(path: Path) -> Records:
    """Read one results file.

    A last line without its end, left by a run that was killed, becomes a finding.

    Raises:
        UnreadableRecords: there is no such file, or it may not be read.
        CorruptRecords: another line is no record; the message names the line and what is wrong with it.
        NewerSchema: the file was written by a newer leanmark.
    """
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UnreadableRecords(f"cannot read {path}: {error.strerror}") from error
    if not lines:
        raise CorruptRecords(f"{path}:1: no complete line, so no run")
    run = _read_run(path, lines[0])
    measurements = tuple(
        _read_measurement(path, number, line, run) for number, line in enumerate(lines[1:], start=2)
    )
    return Records(
        path=path, run=run, measurements=measurements, findings=_truncation(path, len(lines) + 1, tail)
    )


def find(results: Path) -> list[Path]:
    """Every results file under ``results``, the newest run first."""
    return sorted(results.glob("*/*.jsonl"), key=lambda path: path.name, reverse=True)


def machine_slug(environment: Environment) -> str:
    """Readable and unique to the identity of the machine: ``amd-epyc-2c-24g-1f3a9c``; a run on a GPU is told
    apart by its name."""
    machine = environment.machine
    name = re.sub(r"\([^)]*\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", str(machine.get("cpu") or "machine"))
    parts = [re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].rstrip("-")]
    if machine.get("cores"):
        parts.append(f"{machine['cores']}c")
    if machine.get("memory_gib"):
        parts.append(f"{machine['memory_gib']}g")
    if machine.get("gpu"):
        parts.append(re.sub(r"[^a-z0-9]+", "-", str(machine["gpu"]).lower()).strip("-")[:30].rstrip("-"))
    return "-".join([*parts, environment.machine_id[:6]])


def _read_run(path: Path, line: bytes) -> Run:
    fields = _fields(path, 1, line, "run")
    schema = fields.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(
            f"{path} has schema {schema} (leanmark {fields.get('leanmark')}); this leanmark reads up to "
            f"schema {SCHEMA}: install a newer one"
        )
    return _convert(path, 1, fields, Run)


def _read_measurement(path: Path, number: int, line: bytes, run: Run) -> Measurement:
    fields = estimates_among(_fields(path, number, line, "measurement"))
    measurement = _convert(path, number, fields, Measurement)
    if measurement.run != run.id:
        raise CorruptRecords(f"{path}:{number}: belongs to run {measurement.run}, the file to {run.id}")
    return measurement


def _estimates_apart(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a measurement as they are written; others stay as they are."""
    found = {**fields}
    series = fields.get("series") or ()
    if any(map(_is_estimate, series)):
        found["series"] = [one for one in series if not _is_estimate(one)]
        found["estimates"] = [one for one in series if _is_estimate(one)]
    cost = fields.get("cost")
    if cost and cost["energy_provenance"] == Provenance.ESTIMATED_MODEL:
        found["cost"] = {f"estimated_{name}" if name in _JOULES else name: cost[name] for name in cost}
    return found


def estimates_among(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of a measurement as ``encode`` was given them, and as files of schema 1 have them."""
    found, estimates = {**fields}, fields.get("estimates", [])
    if not isinstance(estimates, list):
        found["series"] = estimates  # which is refused there
    elif estimates:
        found["series"] = [*(fields.get("series") or ()), *estimates]
    if isinstance(fields.get("cost"), dict):
        found["cost"] = {name.removeprefix("estimated_"): value for name, value in fields["cost"].items()}
    return found


def _is_estimate(series: Mapping[str, Any]) -> bool:
    return bool(series["provenance"] == Provenance.ESTIMATED_MODEL)


def _fields(path: Path, number: int, line: bytes, kind: Kind) -> dict[str, Any]:
    hint = "; a results file begins with its run" if kind == "run" else ""
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise CorruptRecords(f"{path}:{number}: not a JSON object: {error}{hint}") from error
    if fields.get("kind") != kind:
        raise CorruptRecords(f"{path}:{number}: expected kind {kind!r}, found {fields.get('kind')!r}{hint}")
    return fields


def _convert(path: Path, number: int, fields: Mapping[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise CorruptRecords(f"{path}:{number}: {error}") from error


def _truncation(path: Path, number: int, tail: bytes) -> tuple[Finding, ...]:
    if not tail:
        return ()
    return (
        Finding(
            code="truncated_line",
            message=f"{path.name}:{number} ends in the middle: the run was killed or the disk full by then",
        ),
    )


def _plain(text: str) -> str:
    """``text`` without what some file systems refuse in a name; UTC is spelled ``Z``."""
    return re.sub(r"[^A-Za-z0-9._-]+", "", text.replace("+00:00", "Z"))


def _unwritable(path: Path, error: OSError) -> UnwritableResults:
    return UnwritableResults(f"cannot write results to {path}: {error.strerror or error}")
