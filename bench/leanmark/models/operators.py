"""Counts what one step of PyTorch does, operator by operator. Deterministic; measures no time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leanmark.machine.counters import Counters
from leanmark.models.macs import counting_flops


def count(step: Callable[[], object]) -> Counters:
    """The counters of one call of ``step``, after another one that may allocate state.

    Counts the calls that reach a kernel, forward, backward and optimizer. Fused inference paths of attention
    step aside, as in ``macs``, so that their parts are seen.
    """
    step()
    traffic = _Traffic()
    # the innermost mode comes first: it takes composite operators apart, and the outer one sees the parts
    with traffic, counting_flops() as flops:
        step()
    return Counters(
        flops=flops.get_total_flops(),
        operators=traffic.operators,
        read_bytes=traffic.read_bytes,
        written_bytes=traffic.written_bytes,
        allocations=traffic.allocations,
        allocated_bytes=traffic.allocated_bytes,
    )


class _Traffic(TorchDispatchMode):
    """Adds up the tensors that go into operators and come out of them.

    An operator whose results all look at its arguments, unchanged, is a view and counts nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators = 0
        self.read_bytes = 0
        self.written_bytes = 0
        self.allocations = 0
        self.allocated_bytes = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace != "profiler":
            taken, made = _tensors((args, kwargs or {})), _tensors(result)
            known = {_address(tensor) for tensor in taken}
            if func._schema.is_mutable or not made or any(_address(tensor) not in known for tensor in made):
                self._add(taken, made, known)
        return result

    def _add(self, taken: list[Tensor], made: list[Tensor], known: set[int]) -> None:
        fresh = {_address(tensor): tensor.untyped_storage().nbytes() for tensor in made}
        sizes = [size for address, size in fresh.items() if address not in known and size]
        self.operators += 1
        self.read_bytes += sum(tensor.nbytes for tensor in taken)
        self.written_bytes += sum(tensor.nbytes for tensor in made)
        self.allocations += len(sizes)
        self.allocated_bytes += sum(sizes)


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _address(tensor: Tensor) -> int:
    """That of the memory a tensor looks at: a view has its source's."""
    return tensor.untyped_storage().data_ptr()
