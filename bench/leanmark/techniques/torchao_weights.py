"""Quantized linear layers of torchao: 8-bit floats, 8-bit integers and 4-bit integers.

The weights are quantized in the process that measures, on its device: the layouts of fp8 and int4 are those
of one kind of GPU and live in no file.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Finding, Phase
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep

_ALIGNED = 16
"""Both sides of a weight must be multiples of it: the tiles of the kernels are."""


class TorchAo(Technique):
    """What the four have in common. On a GPU the rest of the model is in bfloat16, as kernels expect."""

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    phases: ClassVar[tuple[Phase, ...]] = ("inference",)
    packages: ClassVar[tuple[str, ...]] = ("torch", "torchao")
    lowers_precision: ClassVar[bool] = True
    refusal: ClassVar[str] = "torchao quantizes weights after training, for eager PyTorch"
    operator: ClassVar[str] = ""
    """What must have run; empty where weights are only stored in fewer bits."""

    @abstractmethod
    def config(self) -> Any:
        """torchao's own description of it."""

    def fits(self, layer: nn.Linear) -> bool:
        return layer.in_features % _ALIGNED == 0 and layer.out_features % _ALIGNED == 0

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        if find_spec("torchao") is None:
            raise Unsupported("torchao is not installed: pip install 'leanmark[torchao]'")
        if not self._layers(model):
            raise Unsupported(
                f"{type(model).__name__} has no linear layer whose sides are multiples of {_ALIGNED}"
            )
        return copy.deepcopy(model)

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        return {"layers": len(self._layers(after))}

    def doubts(self, verified: Mapping[str, Any]) -> tuple[Finding, ...]:
        message = "quantized when it is loaded: the size of its file is that of the float weights"
        return (Finding(code="quantized-on-loading", message=message),)

    def deploy(self, step: TorchStep) -> TorchStep:
        import torch
        from torchao.quantization import quantize_

        from leanmark.techniques.autocast import Rounded

        module = Rounded(step.module, torch.bfloat16) if step.device == "cuda" else step.module
        wanted = self._layers(module)
        names = set(wanted)
        try:
            quantize_(module, self.config(), filter_fn=lambda layer, name: name in names)
        except (AssertionError, ImportError, NotImplementedError, ValueError) as error:
            raise Unsupported(f"torchao cannot do this here: {error}") from error
        left = [name for name, layer in wanted.items() if type(layer.weight.data) is torch.Tensor]
        if left:
            raise TookNoEffect(f"torchao left weights as they were: {', '.join(left)}")
        return replace(step, module=module)

    def verify_executed(self, executed: Executed) -> None:
        ran = {name.partition("[")[0] for name in executed.operators}
        if self.operator and self.operator not in ran:
            raise TookNoEffect(f"{self.operator} did not run, only: {', '.join(sorted(ran))}")

    def _layers(self, model: nn.Module) -> dict[str, nn.Linear]:
        from torch import nn

        return {
            name: layer
            for name, layer in model.named_modules()
            # a subclass may use its weight in its own way, as that of nn.MultiheadAttention is
            if type(layer) is nn.Linear and self.fits(layer)
        }


@dataclass(frozen=True, slots=True)
class Fp8(TorchAo):
    """Weights and activations in e4m3, a scale per row of each (Micikevicius et al., arXiv:2209.05433)."""

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    refusal: ClassVar[str] = "8-bit floats are multiplied by NVIDIA GPUs from 8.9 on, here in inference only"
    tolerance: ClassVar[float] = 0.15
    operator: ClassVar[str] = "_scaled_mm"

    def config(self) -> Any:
        from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, PerRow

        return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())


@dataclass(frozen=True, slots=True)
class Int8Weights(TorchAo):
    """Weights in int8 with a scale per row, converted back in every step: fewer bytes, as much work."""

    tolerance: ClassVar[float] = 0.05

    def config(self) -> Any:
        from torchao.quantization import Int8WeightOnlyConfig

        return Int8WeightOnlyConfig(version=2)


@dataclass(frozen=True, slots=True)
class Int4Weights(TorchAo):
    """Weights in 4 bits with a scale and a zero point per ``group`` of them."""

    group: int = 128

    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    refusal: ClassVar[str] = "torchao's 4-bit weights are laid out for NVIDIA GPUs, here in inference only"
    tolerance: ClassVar[float] = 0.35
    operator: ClassVar[str] = "_weight_int4pack_mm"

    def __post_init__(self) -> None:
        if self.group not in (32, 64, 128, 256):
            raise ValueError(f"group must be 32, 64, 128 or 256, not {self.group}")

    def config(self) -> Any:
        from torchao.quantization import Int4WeightOnlyConfig

        return Int4WeightOnlyConfig(group_size=self.group, int4_packing_format="tile_packed_to_4d")

    def fits(self, layer: nn.Linear) -> bool:
        return layer.in_features % self.group == 0 and layer.out_features % _ALIGNED == 0


@dataclass(frozen=True, slots=True)
class Int8Dynamic(TorchAo):
    """Weights and activations in int8, scales measured in every step (Dettmers et al., NeurIPS 2022).

    On a GPU torch's product asks for more than 16 rows; that of ``int8-exact`` takes any number.
    """

    tolerance: ClassVar[float] = 0.1
    operator: ClassVar[str] = "_int_mm"

    def config(self) -> Any:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig

        return Int8DynamicActivationInt8WeightConfig(version=2)
