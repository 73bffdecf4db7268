"""Whole runs of the tiny model: planned, run, and read back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import plan, store
from leanmark.measuring.campaign import Campaign
from leanmark.plan import QUICK, Plan, Selection
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import Measurement
from leanmark.statistics.merge import merged
from leanmark.store import Records

HERE = Path(__file__).parent
TINY = WorkloadSpec(name="tiny:model", data="tiny:loaders")
SAMPLING = replace(QUICK, rounds=8, block_s=0.002, warmup_s=0.02, timeout_s=20.0)


@contextmanager
def beside_tiny(*others: Path) -> Iterator[None]:
    """Workers import a user's modules from the folder leanmark was started in, and from PYTHONPATH."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HERE)
        for folder in (HERE, *others):
            patch.syspath_prepend(folder)
        for folder in others:
            patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


def planned(*techniques: str, workloads: Sequence[WorkloadSpec] = (TINY,), **axes: object) -> Plan:
    selection = Selection(
        workloads=tuple(workloads), techniques=techniques, batches=(4,), phases=("inference",)
    )
    return plan.make(replace(selection, **axes), SAMPLING)  # type: ignore[arg-type]


def ran(made: Plan, results: Path) -> Records:
    """What was written, with the replicas of each case put together."""
    with Campaign(made, results) as campaign:
        campaign.run_all()
    records = store.load(campaign.path)
    return replace(records, measurements=merged(records.measurements))


def only(records: Records, pass_name: str, **wanted: str) -> Measurement:
    found = [
        one
        for one in records.measurements
        if one.pass_name == pass_name
        and not one.case.sentinel
        and all(getattr(one.case, key) == value for key, value in wanted.items())
    ]
    assert len(found) == 1, [(one.case.id, one.pass_name, one.reason) for one in found]
    return found[0]
