"""How a kernel can be cut into blocks, and one launch of it so cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Config:
    """``blocks`` are compile-time constants by name; ``stages`` of loads are under way at a time."""

    blocks: tuple[tuple[str, int], ...]
    warps: int
    stages: int

    def __getitem__(self, name: str) -> int:
        return dict(self.blocks)[name]

    def __str__(self) -> str:
        blocks = " ".join(f"{name}={size}" for name, size in self.blocks)
        return f"{blocks} warps={self.warps} stages={self.stages}"


def config(warps: int, stages: int, **blocks: int) -> Config:
    return Config(tuple(blocks.items()), warps, stages)


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of the jitted ``function``; ``constants`` are compiled in, beside the blocks of ``config``.

    One that ``waits`` may begin while the launch in front of it runs, and waits for the end of that itself
    (CUDA C++ programming guide, 'programmatic dependent launch'; from compute capability 9.0 on).
    """

    function: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Any]
    constants: Mapping[str, Any]
    config: Config
    waits: bool = False

    def compiled_in(self) -> dict[str, Any]:
        """All constants by name; a block that is no argument of the function shapes the grid alone."""
        names = self.function.arg_names
        return {**self.constants, **{name: size for name, size in self.config.blocks if name in names}}

    def __call__(self) -> None:
        self.function[self.grid](**self._everything())

    def compile(self, *, wait: bool) -> None:
        """Have the machine code that the call needs, and run nothing.

        Within Triton's ``AsyncCompileMode`` threads make it, and only ``wait`` shows whether they can.
        """
        kernel = self.function.warmup(grid=self.grid, **self._everything())
        if wait and hasattr(kernel, "result"):
            kernel.result()

    def options(self) -> dict[str, Any]:
        """What Triton is told of the machine code besides the constants."""
        waits = {"launch_pdl": True} if self.waits else {}
        return {"num_warps": self.config.warps, "num_stages": self.config.stages, **waits}

    def _everything(self) -> dict[str, Any]:
        return {**self.arguments, **self.compiled_in(), **self.options()}


def pieces(size: int, block: int) -> int:
    """How many blocks cover ``size``."""
    return -(-size // block)
