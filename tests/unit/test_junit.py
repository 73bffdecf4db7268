"""The figures of a case that pytest writes into JUnit's XML."""

from __future__ import annotations

from leanmark.pytest_plugin import properties
from leanmark.reading import tabulate

from . import synthetic


def test_each_metric_is_there_once_as_in_the_table_and_an_estimate_is_named_one() -> None:
    records = synthetic.records()
    row = next(
        row for table in tabulate.build([records]) for row in table.rows if row.case.technique == "distill"
    )
    assert row.latency and row.working_memory and row.energy
    found = list(properties([one for one in records.measurements if one.case == row.case]))
    values = dict(found)
    assert len(values) == len(found)
    assert values["latency_s"] == row.latency.summary.value
    assert values["working_memory_bytes"] == row.working_memory.summary.value
    assert values["estimated_energy_j"] == row.energy.summary.value
    assert "energy_j" not in values
