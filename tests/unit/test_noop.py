from __future__ import annotations

import pytest
import torch

from leanmark import plan, registry
from leanmark.errors import Unsupported
from leanmark.models.operators import count
from leanmark.workloads.base import Workload
from leanmark.workloads.training import outputs


def _noop() -> Workload:
    made: Workload = registry.load("workloads", "noop")()
    return made


def test_it_does_nothing_and_is_always_right() -> None:
    model, test = _noop().model(), _noop().dataset().test
    assert torch.equal(outputs(model, test.inputs).argmax(1), test.targets)
    found = count(lambda: model(test.inputs))
    assert (found.flops, found.operators, found.allocations) == (0, 0, 0)


def test_training_it_is_refused() -> None:
    with pytest.raises(Unsupported, match="noop has no parameters to train"):
        _noop().optimizer(())


def test_it_is_measured_on_request_only() -> None:
    made = plan.make(plan.Selection(techniques=("fp32",)), plan.QUICK)
    assert "noop" in registry.rows("workloads")
    assert "noop" not in made.workloads
