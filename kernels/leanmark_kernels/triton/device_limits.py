"""What a GPU allows a kernel, as far as a configuration depends on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch

SHARED_BYTES = {(8, 0): 163 * 1024, (9, 0): 227 * 1024, (10, 0): 227 * 1024}
"""Largest shared memory of one block by compute capability (CUDA C++ programming guide, table 'technical
specifications per compute capability'), for compiling without a GPU."""

SMALLEST_SHARED_BYTES = 99 * 1024
"""Of the capabilities 8.6, 8.9 and 12.0, the least of those from 8.0 on."""

RESERVED_BYTES = 1024
"""Of the shared memory of a multiprocessor, for the system, beside what each block asks for (ibid.)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``shared_bytes`` is what one block may use; ``multiprocessors`` is how many blocks run side by side."""

    capability: tuple[int, int]
    shared_bytes: int
    multiprocessors: int

    @property
    def descriptors(self) -> bool:
        """Whether the copy engine for tensor descriptors (TMA) is there."""
        return self.capability >= (9, 0)

    def shared_by(self, blocks: int) -> Self:
        """What each of ``blocks`` on one multiprocessor may use."""
        share = (self.shared_bytes + RESERVED_BYTES) // blocks - RESERVED_BYTES
        return replace(self, shared_bytes=share)


def on_paper(capability: tuple[int, int]) -> Limits:
    """Those of a data-centre GPU of ``capability``, without having one."""
    return Limits(capability, SHARED_BYTES.get(capability, SMALLEST_SHARED_BYTES), 132)


def of(device: torch.device) -> Limits:
    """Those of ``device``; the interpreter, on CPU, is taken for a Hopper GPU with few multiprocessors."""
    if device.type != "cuda":
        return Limits((9, 0), SHARED_BYTES[9, 0], 4)
    properties = torch.cuda.get_device_properties(device)
    return Limits(
        (properties.major, properties.minor),
        properties.shared_memory_per_block_optin,  # type: ignore[attr-defined]
        properties.multi_processor_count,
    )
