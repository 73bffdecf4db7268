"""What a saved packed layer says about itself, and the check of it on loading."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from leanmark_kernels.large_pages import in_large_pages

VERSION = 4
"""Of the packed layouts. Raise it when the bytes of any of them change their meaning."""

TAG = "format"

_AGAIN = "Pack the original layer again."


class PackedModule(nn.Module):
    """A layer whose weights are packed: buffers, and a tag that tells what they are.

    The tag, an int64 buffer ``format``, holds the layout, its version, a checksum of the other buffers and
    the ``options`` that the layout depends on. ``load_state_dict`` refuses a state whose tag is missing,
    differs or does not match its tensors, and then leaves the layer as it was; a pickled layer is refused for
    the first two. With ``strict=False`` a state may hold nothing of the layer at all. The layer can be moved
    between devices, and keeps its dtypes, which belong to the layout.
    """

    layout: ClassVar[str]
    shown: ClassVar[tuple[str, ...]] = ()
    """Attributes that ``repr`` shows behind the options."""
    weight: Tensor
    bias: Tensor | None

    def __init__(self, **options: int) -> None:
        super().__init__()
        self.options = options

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def moved(tensor: Tensor) -> Tensor:
            # as one line of numbers, so that no channels_last changes the layout
            after = fn(tensor.as_strided((tensor.numel(),), (1,)))
            if after.dtype == tensor.dtype:
                return after.as_strided(tensor.shape, tensor.stride())
            if after.dtype != torch.float32:  # in which it computes already
                raise TypeError(
                    f"{type(self).__name__} cannot become {after.dtype}: the dtypes of its tensors belong to "
                    "their layout. Cast the original layer before it is packed."
                )
            return tensor.to(after.device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, or of a layer that was saved whole."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        reason = self._why_foreign(self._buffers.get(TAG))
        if reason is not None:
            raise RuntimeError(f"this pickled {type(self).__name__} is refused: {reason}")
        for name, tensor in self._buffers.items():
            self._buffers[name] = None if tensor is None else in_large_pages(tensor)

    def hold(self, **tensors: Tensor | None) -> None:
        """Take ``tensors`` as the buffers of this layer, and write the tag for them."""
        present = {name: in_large_pages(each) for name, each in tensors.items() if each is not None}
        tag = [_number(self.layout), VERSION, checksum(present), *self.options.values()]
        device = next(iter(present.values())).device
        # torch.export miscounts buffers that come after one that is None.
        for name, tensor in {TAG: torch.tensor(tag, device=device), **present, **(tensors | present)}.items():
            self.register_buffer(name, tensor)

    def extra_repr(self) -> str:
        values = {**self.options, **{name: getattr(self, name) for name in self.shown}}
        return ", ".join(f"{name}={value}" for name, value in values.items())

    def why_refused(self, state: Mapping[str, Tensor]) -> str | None:
        """Why ``state``, the tensors of one layer by name, cannot be loaded; ``None`` where it can."""
        reason = self._why_foreign(state.get(TAG))
        if reason is not None:
            return reason
        tensors = {name: tensor for name, tensor in state.items() if name != TAG}
        own = self.state_dict().keys() - {TAG}
        if tensors.keys() != own:
            return f"it holds {sorted(tensors)}, and this layer holds {sorted(own)}."
        bare = [name for name, one in state.items() if not isinstance(one, Tensor) or one.is_meta]
        if bare:
            return f"{sorted(bare)} in it are not tensors with values. {_AGAIN}"
        if checksum(tensors) != state[TAG][2]:
            return f"its tensors do not match its checksum, so it is corrupt. {_AGAIN}"
        return None

    def _why_foreign(self, tag: object) -> str | None:
        if not isinstance(tag, Tensor) or tag.dtype != torch.int64 or tag.dim() != 1:
            return f"it has no '{TAG}' tag, so it is not the state of a packed layer. {_AGAIN}"
        if tag.is_meta:
            return None
        numbers = tag.tolist()
        if len(numbers) != 3 + len(self.options) or numbers[0] != _number(self.layout):
            return f"it is packed for another operator than {self.layout}. {_AGAIN}"
        if numbers[1] != VERSION:
            return f"its layout has version {numbers[1]}, and this code reads version {VERSION}. {_AGAIN}"
        theirs = dict(zip(self.options, numbers[3:], strict=True))
        if theirs != self.options:
            return f"it is for {_words(theirs)}, and this layer is for {_words(self.options)}."
        return None

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *others: Any
    ) -> None:  # the arguments are those of nn.Module; errors are the last of them
        mine = {key.removeprefix(prefix): state_dict[key] for key in state_dict if key.startswith(prefix)}
        reason = self.why_refused(mine) if mine else None  # that all of it is missing, torch tells
        if reason is None:
            super()._load_from_state_dict(state_dict, prefix, *others)
        else:
            where = f" for '{prefix.removesuffix('.')}'" if prefix else ""
            others[-1].append(f"this state{where} is refused: {reason}")


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over names, dtypes, shapes and bytes."""
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {list(tensor.shape)}".encode(), total)
        flat = tensor.detach().cpu().contiguous().flatten()
        total = zlib.crc32(flat.view(torch.uint8).numpy().data, total)
    return total


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _words(options: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in options.items())
