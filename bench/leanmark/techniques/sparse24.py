"""2:4 sparsity: two of every four weights are 0, which the sparse tensor cores of NVIDIA GPUs skip."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Phase
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep

_ROWS, _COLUMNS = 32, 64
"""The sides of a weight must be multiples of these: the tiles of torch's sparse kernels in 16 bits."""

_OPERATORS = frozenset({"_cslt_sparse_mm", "_sparse_semi_structured_linear", "_sparse_semi_structured_addmm"})


@dataclass(frozen=True, slots=True)
class Sparse24(Technique):
    """The two largest of every four weights stay, in all linear layers that fit; then fine-tuning with the
    others held at 0 (Mishra et al., arXiv:2104.08378), unless the weights are random anyway."""

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    devices: ClassVar[tuple[str, ...]] = ("cuda",)
    phases: ClassVar[tuple[Phase, ...]] = ("inference",)
    lowers_precision: ClassVar[bool] = True
    retrains: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.05  # bfloat16, against the sparse model in float32
    refusal: ClassVar[str] = "only the sparse tensor cores of NVIDIA GPUs (Ampere and later) gain by it"

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        import torch

        from leanmark.workloads.training import train

        changed = copy.deepcopy(model)
        layers = fitting(changed)
        if not layers:
            raise Unsupported(
                f"{type(model).__name__} has no linear layer of multiples of {_ROWS} by {_COLUMNS}"
            )
        masks = {name: two_of_four(layer.weight.detach()) for name, layer in layers.items()}
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight.mul_(masks[name])
        workload = context.workload
        if workload.recipe is not None:
            hooks = [layer.weight.register_hook(masks[name].mul) for name, layer in layers.items()]
            recipe = dataclasses.replace(workload.finetune, weight_decay=0.0)
            train(changed, workload.dataset().train, recipe, workload.loss)
            for hook in hooks:
                hook.remove()
        return changed

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        layers = fitting(after)
        dense = [name for name, layer in layers.items() if _most_of_four(layer.weight) > 2]
        if dense or not layers:
            raise TookNoEffect(f"more than two of four weights are left: {', '.join(dense) or 'no layer'}")
        return {"layers": len(layers), "sparsity": 0.5}

    def deploy(self, step: TorchStep) -> TorchStep:
        import torch
        from torch import nn
        from torch.sparse import to_sparse_semi_structured

        from leanmark.techniques.autocast import Rounded

        if step.device not in self.devices:
            raise Unsupported(self.refusal)
        module = Rounded(step.module, torch.bfloat16)
        for layer in fitting(module).values():
            layer.weight = nn.Parameter(to_sparse_semi_structured(layer.weight.detach()), requires_grad=False)
        return replace(step, module=module)

    def verify_executed(self, executed: Executed) -> None:
        ran = {name.partition("[")[0] for name in executed.operators}
        if not ran & _OPERATORS:
            raise TookNoEffect(f"no sparse product ran, only: {', '.join(sorted(ran))}")


def two_of_four(weight: Tensor) -> Tensor:
    """1 for the two largest of every four neighbours in a row of ``weight`` [N, 4 M], 0 for the others."""
    import torch

    groups = weight.abs().reshape(-1, 4)
    mask = torch.zeros_like(groups).scatter_(1, groups.topk(2, dim=1).indices, 1.0)
    return mask.reshape(weight.shape)


def fitting(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers by name that the sparse kernels take."""
    from torch import nn

    return {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and layer.out_features % _ROWS == 0 and layer.in_features % _COLUMNS == 0
    }


def _most_of_four(weight: Tensor) -> int:
    return int((weight.reshape(-1, 4) != 0).sum(1).max())
