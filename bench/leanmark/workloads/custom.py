"""A user's own model and data, named by two ``module:attribute`` targets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from leanmark import registry
from leanmark.errors import UsageError
from leanmark.workloads.base import Dataset, Split, Workload


@dataclass(frozen=True, slots=True)
class Custom(Workload):
    """``factory`` names a function () -> trained nn.Module, ``loaders`` one () -> (train, test).

    Train and test are iterables of batches (inputs [B, ...], targets [B] or [B, ...]), such as a
    DataLoader. What the two functions raise themselves is passed on as it is.
    """

    factory: str
    loaders: str

    def model(self, seed: int = 0) -> nn.Module:
        """The user's trained model, which no seed changes.

        Raises:
            UsageError: ``factory`` cannot be imported or returns something else.
        """
        made = _load(self.factory)()
        if not isinstance(made, nn.Module):
            raise UsageError(f"{self.factory}() must return a torch.nn.Module, not {_kind(made)}")
        return made

    @property
    def quantization(self) -> Literal["static", "dynamic"]:
        """Told from the kinds of layers in the model."""
        return _quantization(self.factory)

    def dataset(self) -> Dataset:
        """All batches joined; read once per process. Floats become float32, integers int64.

        Raises:
            UsageError: ``loaders`` cannot be imported or returns something else.
        """
        _load(self.factory)  # a wrong name is told before data are read, which may take long
        return _dataset(self.loaders)


def _load(target: str) -> Callable[[], Any]:
    module, colon, attribute = target.partition(":")
    if not (module and colon and attribute):
        raise UsageError(f"'{target}' should look like module:function")
    found = registry.load_own(target)
    if not callable(found):
        raise UsageError(f"{target} must be a function without arguments, not {_kind(found)}")
    function: Callable[[], Any] = found
    return function


@cache
def _quantization(factory: str) -> Literal["static", "dynamic"]:
    kinds = (nn.RNNBase, nn.MultiheadAttention, nn.Embedding)
    parts: Iterable[nn.Module] = _load(factory)().modules()
    return "dynamic" if any(isinstance(part, kinds) for part in parts) else "static"


@cache
def _dataset(target: str) -> Dataset:
    made = _load(target)()
    if not isinstance(made, tuple | list) or len(made) != 2:
        raise UsageError(f"{target}() must return a pair (train, test), not {_kind(made)}")
    train, test = made
    return Dataset(train=_join(train, f"{target}(), train"), test=_join(test, f"{target}(), test"))


def _join(batches: Iterable[Any], where: str) -> Split:
    if not isinstance(batches, Iterable):
        raise UsageError(f"{where}: must be an iterable of batches, not {_kind(batches)}")
    pairs = [_check(batch, where) for batch in batches]
    if not pairs:
        raise UsageError(f"{where}: has no batches")
    try:
        inputs = torch.cat([_convert(inputs) for inputs, _ in pairs])
        targets = torch.cat([_convert(targets) for _, targets in pairs])
    except RuntimeError as error:
        raise UsageError(f"{where}: batches cannot be joined: {error}") from error
    return Split(inputs=inputs, targets=targets)


def _check(batch: Any, where: str) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UsageError(f"{where}: a batch must be a pair (inputs, targets), not {_kind(batch)}")
    inputs, targets = batch
    for name, part in (("inputs", inputs), ("targets", targets)):
        if not isinstance(part, Tensor) or part.dim() == 0:
            raise UsageError(f"{where}: {name} must be a tensor [batch, ...], not {_kind(part)}")
    if len(inputs) != len(targets):
        raise UsageError(f"{where}: {len(inputs)} inputs but {len(targets)} targets in one batch")
    return inputs, targets


def _convert(part: Tensor) -> Tensor:
    dtype = torch.float32 if part.is_floating_point() else torch.int64
    return part.detach().to("cpu", dtype)


def _kind(value: object) -> str:
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
