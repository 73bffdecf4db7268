"""leanmark's own operators as techniques: in the dtype of the model, and with weights of fewer bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from leanmark.techniques.repacked import Repacked


@dataclass(frozen=True, slots=True)
class Kernels(Repacked):
    """The fastest fp32 form of every layer, ours or a library's; batch norm and activations fused in.

    After ``bf16`` on a GPU, the fastest bfloat16 form.
    """


@dataclass(frozen=True, slots=True)
class W8(Repacked):
    """Weights of linear layers and 1x1 convolutions in 8 bits with a scale per output, fp32 arithmetic.

    Every such layer takes them, whether faster here or not: a quarter of the bytes is the other half of the
    point. The remaining layers are as with ``kernels``. On a GPU linear layers alone take them, and
    everything else is in bfloat16. The next three do the same.
    """

    weights: ClassVar[str] = "w8"
    least_share: ClassVar[float] = 0.5
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.05  # trained networks show 0.002 to 0.01
    proof: ClassVar[str] = "leanmark::packed_linear[float32+int8]"
    gpu_proof: ClassVar[str] = "leanmark_kernels::weight_only_linear[bfloat16+float32+int8]"


@dataclass(frozen=True, slots=True)
class W4(Repacked):
    """Weights of linear layers in 4 bits, groups of 128; the rest in bfloat16. Rounded to nearest."""

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    refusal: ClassVar[str] = f"{Repacked.refusal}; for processors there is w4a8"
    weights: ClassVar[str] = "w4"
    least_share: ClassVar[float] = 0.5
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.35
    gpu_proof: ClassVar[str] = "leanmark_kernels::weight_only_linear[bfloat16+float32+uint8]"


@dataclass(frozen=True, slots=True)
class W4A8(Repacked):
    """Weights of linear layers and 1x1 convolutions in 4 bits, groups of 32; activations in 8.

    The numerics are those of ONNX Runtime's MatMulNBits at accuracy level 4. Rounded to nearest, nothing is
    calibrated.
    """

    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    refusal: ClassVar[str] = f"{Repacked.refusal}; for GPUs there is w4"
    weights: ClassVar[str] = "w4a8"
    least_share: ClassVar[float] = 0.5
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.25  # trained networks show 0.05 to 0.1
    proof: ClassVar[str] = "leanmark::w4a8_linear["


@dataclass(frozen=True, slots=True)
class Int8Exact(Repacked):
    """Weights per output and activations per row or image in 8 bits, summed without saturation.

    Without VNNI, exact sums of 8 bits are slower than saturating ones. A linear layer or 1x1 convolution may
    take 7 bits there, whose exact sums are not: where they were measured to be faster, and their error, about
    twice as large, is within the same limit. What took them is called ``int7 exact``.

    On a GPU in linear layers and 1x1 convolutions, for any number of rows; the rest in bfloat16.
    """

    weights: ClassVar[str] = "int8-exact"
    least_share: ClassVar[float] = 0.5
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.1  # trained networks show 0.005 to 0.02
    proof: ClassVar[str] = "leanmark::int8_"
    gpu_proof: ClassVar[str] = "leanmark_kernels::int8_linear["
