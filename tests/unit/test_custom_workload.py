"""A user's own model and data, and what is said when they are not what was promised."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from leanmark.errors import Unsupported, UsageError
from leanmark.workloads.custom import Custom

_calls: list[str] = []


def model() -> nn.Module:
    return nn.Linear(3, 2)


def no_model() -> int:
    return 3


def loaders() -> tuple[object, object]:
    _calls.append("loaders")
    inputs = torch.arange(30, dtype=torch.float64).reshape(10, 3)
    targets = torch.arange(10, dtype=torch.int32) % 2
    train = DataLoader(TensorDataset(inputs, targets), batch_size=4)
    return train, [(inputs[:2], targets[:2]), (inputs[2:5], targets[2:5])]


def regression() -> tuple[object, object]:
    batches = [(torch.rand(4, 3), torch.rand(4, 1))]
    return batches, batches


def no_pair() -> list[int]:
    return [1, 2, 3]


def numbers() -> tuple[int, int]:
    return 1, 2


def empty() -> tuple[list[object], list[object]]:
    return [], []


def triples() -> tuple[object, object]:
    batches = [(1, 2, 3)]
    return batches, batches


def lists() -> tuple[object, object]:
    batches = [([1.0], torch.ones(1))]
    return batches, batches


def uneven() -> tuple[object, object]:
    batches = [(torch.ones(3, 2), torch.ones(2))]
    return batches, batches


def ragged() -> tuple[object, object]:
    batches = [(torch.ones(3, 2), torch.ones(3)), (torch.ones(3, 4), torch.ones(3))]
    return batches, batches


def _custom(loaders: str = "loaders", factory: str = "model") -> Custom:
    return Custom(f"{__name__}:{factory}", f"{__name__}:{loaders}")


def test_model_and_data_of_a_user() -> None:
    workload = _custom()
    dataset = workload.dataset()

    assert isinstance(workload.model(), nn.Linear)
    assert workload.recipe is None
    assert dataset.train.inputs.shape == (10, 3)
    assert dataset.test.inputs.tolist() == [[3.0 * n, 3.0 * n + 1, 3.0 * n + 2] for n in range(5)]
    assert dataset.train.inputs.dtype == torch.float32
    assert dataset.train.targets.dtype == torch.int64
    assert dataset.test.targets.tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(Unsupported, match="no student"):
        workload.student()


def test_data_are_read_once_per_process() -> None:
    _custom().dataset()
    before = len(_calls)

    _custom().dataset()

    assert len(_calls) == before


def test_regression_targets_stay_floats() -> None:
    targets = _custom("regression").dataset().test.targets

    assert (targets.shape, targets.dtype) == ((4, 1), torch.float32)


@pytest.mark.parametrize(
    ("loaders", "message"),
    [
        ("no_pair", r"no_pair\(\) must return a pair \(train, test\), not a list of 3"),
        ("numbers", "train: must be an iterable of batches, not a int"),
        ("empty", "train: has no batches"),
        ("triples", r"a batch must be a pair \(inputs, targets\), not a tuple of 3"),
        ("lists", r"inputs must be a tensor \[batch, ...\], not a list of 1"),
        ("uneven", "3 inputs but 2 targets in one batch"),
        ("ragged", "batches cannot be joined"),
        ("missing", "has no attribute 'missing'"),
        ("_calls", "must be a function without arguments, not a list"),
    ],
)
def test_wrong_data_are_explained(loaders: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _custom(loaders).dataset()


def test_wrong_models_are_explained() -> None:
    with pytest.raises(UsageError, match=r"no_model\(\) must return a torch.nn.Module, not a int"):
        _custom(factory="no_model").model()
    with pytest.raises(UsageError, match="'no_such_module_here:model' cannot be imported"):
        Custom("no_such_module_here:model", "x:y").model()
    with pytest.raises(UsageError, match="'model' should look like module:function"):
        Custom("model", "x:y").model()
