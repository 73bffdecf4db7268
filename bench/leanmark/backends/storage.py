"""How many bytes tensors hold, each storage counted once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def held_bytes(tensors: Iterable[Tensor], besides: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages behind ``tensors`` but those behind ``besides``; views share theirs."""
    known = {one.untyped_storage().data_ptr() for one in _plain(besides)}
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in _plain(tensors)}
    return sum(size for pointer, size in storages.items() if pointer not in known)


def _plain(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """A quantized or sparse weight is a wrapper without storage around the tensors that it is made of."""
    from torch.utils._python_dispatch import is_traceable_wrapper_subclass

    each: Any
    for each in tensors:
        if is_traceable_wrapper_subclass(each):
            yield from _plain(getattr(each, name) for name in each.__tensor_flatten__()[0])
        else:
            yield each
