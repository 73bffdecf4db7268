"""What computes a layer within torch: our operators, torch itself, oneDNN, torch.compile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leanmark_kernels import integer_packing
from leanmark_kernels.convert.block import Block
from leanmark_kernels.convert.rows import ROWS

Call = Callable[[], object]

GROUP = 32
"""Weights of 4 bits that share a scale."""


@dataclass(frozen=True, slots=True)
class Contender:
    """``call`` runs it once, ``output`` gives its result; ``ours`` are held against the libraries.

    ``weights`` is how they are stored, ``bytes`` how much of them is read.
    """

    name: str
    call: Call
    output: Callable[[], Tensor]
    weights: str = "fp32"
    ours: bool = False
    bytes: int = 0


def rows_of_convert(block: Block, x: Tensor, coarse: bool = True) -> Iterator[Contender]:
    """Every row of the table of ``leanmark_kernels.convert`` that can compute ``block``.

    Those with weights of fewer bits only where ``coarse``.
    """
    row_major = x.contiguous()
    for row in (row for row in ROWS if coarse or row.weights in ("fp32", "sparse")):
        if not isinstance(block.layer, row.layer) or row.why_not(block.layer) is not None:
            continue
        plain = row.name == "torch"  # with its own layout outside too: what torch does by itself
        module = (block if plain else row.build(block, tuple(x.shape))).eval()
        yield of_module(row.name, module, row_major if plain else x, row.weights, row.operator is not None)


def of_module(
    name: str, module: nn.Module, x: Tensor, weights: str = "fp32", ours: bool = False
) -> Contender:
    """``module`` on ``x``, with all that it holds read once."""

    def call() -> Tensor:
        output: Tensor = module(x)
        return output

    stored = [*module.parameters(), *module.buffers()]
    return Contender(name, call, call, weights, ours, sum(one.nbytes for one in stored))


def compiled(module: nn.Module, x: Tensor) -> Contender:
    """torch.compile with weights frozen, which lets it prepack them; one shape."""
    import torch._inductor.config as inductor

    with inductor.patch(freezing=True):
        function = torch.compile(module, dynamic=False)
        function(x)

    def call() -> Tensor:
        output: Tensor = function(x)
        return output

    return Contender("torch.compile", call, call)


def weight_only(linear: nn.Linear, x: Tensor) -> Iterator[Contender]:
    """torch's linear layers with weights of 8 and 4 bits, in bfloat16: in fp32 the latter has no kernel."""
    assert linear.bias is not None
    weight, x16, bias16 = linear.weight.detach(), x.bfloat16(), linear.bias.detach().bfloat16()
    integers, scale = integer_packing.quantize_channels(weight)
    scale16 = scale.bfloat16()

    def w8() -> Tensor:
        return torch._weight_int8pack_mm(x16, integers, scale16).add_(bias16).float()

    yield Contender("torch w8 (bf16)", w8, w8, "w8")
    groups = weight.view(len(weight), -1, GROUP)
    scales = groups.abs().amax(-1).clamp(min=1e-12) / 7
    levels = (groups / scales[..., None]).round().flatten(1).int() + 8
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 1)
    affine = torch.stack([scales.t(), torch.zeros_like(scales.t())], -1).bfloat16()

    def w4() -> Tensor:
        product: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x16, packed, GROUP, affine)
        return product.add_(bias16).float()

    yield Contender("torch w4 (bf16)", w4, w4, "w4a8")
