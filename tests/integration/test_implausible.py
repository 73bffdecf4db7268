"""What cannot be true ends INVALID with the reason: real processes whose clock, work or model is broken."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from leanmark import plan, store
from leanmark.measuring.campaign import Campaign
from leanmark.plan import QUICK, Selection
from leanmark.protocol.messages import WorkloadSpec
from leanmark.record import Measurement
from leanmark.statistics.merge import merged

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
SAMPLING = replace(QUICK, processes=1, rounds=8, block_s=0.002, warmup_s=0.02, timeout_s=60.0)

REASONS = {
    "tiny:Misbehaving(what=clock)": r"the clock gave nan s for a block of \d+ steps: it is broken",
    "tiny:Misbehaving(at=0,what=return-early)": "steps return before their work is done",
    "tiny:Dice": "the model is not deterministic",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measurement]:
    """The latency measurements of one contest, by technique."""
    selection = Selection(
        workloads=(WorkloadSpec(name="tiny:model", data="tiny:loaders"),),
        techniques=tuple(REASONS),
        backends=("eager",),
        phases=("inference",),
        batches=(4,),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(HERE)
        patch.syspath_prepend(HERE)
        with Campaign(plan.make(selection, SAMPLING), tmp_path_factory.mktemp("results")) as campaign:
            campaign.run_all()
        records = merged(store.load(campaign.path).measurements)
    return {one.case.label: one for one in records if one.pass_name == "latency"}


@pytest.mark.parametrize("technique", REASONS)
def test_it_is_invalid_and_carries_no_number(found: dict[str, Measurement], technique: str) -> None:
    one = found[technique]
    assert (one.status, one.series) == ("invalid", ()), one.reason
    assert re.search(REASONS[technique], str(one.reason)), one.reason


def test_the_others_go_on_without_it(found: dict[str, Measurement]) -> None:
    assert {found[label].status for label in ("fp32", "fp32-again")} == {"ok"}
