"""One way to compute a block, and what is put around it for what it cannot do itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from leanmark_kernels.convert.block import ACTIVATIONS, Block

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to compute a block.

    ``make(layer, activation, shape)`` gives the module for an input of ``shape``; ``fuses`` names what that
    module can do besides: activations, and ``residual``. ``why_not`` says why a layer has to do without it.
    ``operator`` is what a profiler sees, ``None`` for a library.
    """

    name: str
    layer: type[nn.Module]
    make: Callable[[Any, str | None, Shape], nn.Module]
    why_not: Callable[[Any], str | None]
    operator: str | None = None
    weights: str = "fp32"
    fuses: tuple[str, ...] = ()

    def build(self, block: Block, shape: Shape) -> nn.Module:
        """A module with the arguments of ``block``."""
        residual = block.residual and "residual" not in self.fuses
        fused = None if residual or block.activation not in self.fuses else block.activation
        kernel = self.make(block.layer, fused, shape)
        after = None if fused else block.activation
        return Then(kernel, after, residual) if residual or after else kernel


class Then(nn.Module):
    """``kernel``, and after it in torch what it does not do itself."""

    def __init__(self, kernel: nn.Module, activation: str | None, residual: bool) -> None:
        super().__init__()
        self.kernel, self.activation, self.residual = kernel, activation, residual

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        if residual is None:
            output: Tensor = self.kernel(input)
        elif self.residual:
            output = self.kernel(input).add_(residual)
        else:
            output = self.kernel(input, residual)
        return output if self.activation is None else ACTIVATIONS[self.activation](output)
