"""Counts what one step of PyTorch does, operator by operator. Deterministic; measures no time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leanmark.machine.counters import Counted, Counters
from leanmark.models.macs import counting_flops

_LIBRARY = frozenset({"aten", "prim", "prims", "profiler"})
_PRODUCT = re.compile(r"mm(_|$)|conv|(^|_)linear(_|$)|attention|_rnn")


def count(step: Callable[[], object]) -> Counters:
    """The counters of one call of ``step``, after another one that may allocate state.

    Counts the calls that reach a kernel, forward, backward and optimizer. Fused inference paths of attention
    step aside, as in ``macs``, so that their parts are seen.
    """
    return _count(step)[0]


def counted(step: Callable[[], object]) -> Counted:
    """The same by the names of records, with the reason where FLOPs cannot be told."""
    found, unknown = _count(step)
    counts = {
        "flops": found.flops,
        "operator_calls": found.operators,
        "read_bytes": found.read_bytes,
        "written_bytes": found.written_bytes,
        "allocations": found.allocations,
        "allocated_bytes": found.allocated_bytes,
    }
    return Counted(
        counts={name: value for name, value in counts.items() if value is not None},
        missing={"flops": f"nobody knows those of {', '.join(unknown)}"} if unknown else {},
    )


def _count(step: Callable[[], object]) -> tuple[Counters, tuple[str, ...]]:
    """The counters, and the operators whose FLOPs are not known."""
    step()
    traffic = _Traffic()
    # the innermost mode comes first: it takes composite operators apart, and the outer one sees the parts
    with traffic, counting_flops() as flops:
        step()
    unknown = sorted({str(one) for one in traffic.seen - flops.flop_registry.keys() if _computes(one)})
    counters = Counters(
        flops=None if unknown else flops.get_total_flops(),
        operators=traffic.operators,
        read_bytes=traffic.read_bytes,
        written_bytes=traffic.written_bytes,
        allocations=traffic.allocations,
        allocated_bytes=traffic.allocated_bytes,
    )
    return counters, tuple(unknown)


def _computes(operator: torch._ops.OpOverloadPacket) -> bool:
    """Whether it may multiply and accumulate: torch's own by their name, and whatever is not torch's."""
    namespace, _, name = str(operator).partition(".")
    return namespace not in _LIBRARY or _PRODUCT.search(name) is not None


class _Traffic(TorchDispatchMode):
    """Adds up the tensors that go into operators and come out of them.

    An operator whose results all look at its arguments, unchanged, is a view and counts nothing.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[torch._ops.OpOverloadPacket] = set()
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
                self.seen.add(func._overloadpacket)
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
