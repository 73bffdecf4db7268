"""What all techniques share that put leanmark's own operators in the place of a model's layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Finding, Phase
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep
    from leanmark_kernels.convert import Choice, Converted

NAMESPACE, GPU_NAMESPACE = "leanmark::", "leanmark_kernels::"
"""How the operators of leanmark_kernels begin in Executed.operators, on processors and on GPUs."""


@dataclass(frozen=True, slots=True)
class Repacked(Technique):
    """Every layer in the form of ``weights`` that is fastest here, by ``leanmark_kernels.convert``.

    ``batch`` is the one that layers are timed with; the changed model runs any. Timings are kept per
    machine (XDG cache), so that a second run makes the same choices.

    On a GPU a model after ``bf16``, and one with weights of fewer bits, is in bfloat16 as a whole; autocast
    converts its weights in every step, which is part of the gain over it. Layers are timed by the GPU's own
    clock: without ``cuda_graphs`` behind it, a short step shows the host instead.
    """

    batch: int = 1

    backends: ClassVar[tuple[str, ...]] = ("eager",)
    phases: ClassVar[tuple[Phase, ...]] = ("inference",)
    repacks: ClassVar[bool] = True
    refusal: ClassVar[str] = (
        "leanmark's operators are PyTorch operators for inference: packed weights have no gradients, and "
        "other backends do not know them"
    )
    weights: ClassVar[str] = "fp32"
    """The recipe of ``leanmark_kernels.convert``."""
    least_share: ClassVar[float] = 0.0
    """Of the weights, what must be in that form for the technique to deserve its name."""
    proof: ClassVar[str] = NAMESPACE
    """How the name of an operator in Executed.operators begins that only this technique runs."""
    gpu_proof: ClassVar[str] = GPU_NAMESPACE

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, not {self.batch}")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        return self.placed(model, context.workload.dataset().train.inputs[: self.batch], context.device)

    def placed(self, model: nn.Module, example: Tensor, device: str) -> nn.Module:
        """``model`` converted where it will run."""
        if device == "cpu":
            return self.repack(model, example)
        from leanmark.techniques import on_gpu

        return on_gpu.converted(model, example, self.repack, lower=self.lowers_precision)

    def repack(self, model: nn.Module, example: Tensor) -> Converted:
        """``model`` with its layers chosen by timing them on ``example``.

        Raises:
            Unsupported: there is no native code, the model cannot be converted, or nothing is gained.
        """
        import leanmark_kernels
        from leanmark_kernels.convert import Recipe, convert

        reason = leanmark_kernels.why_unavailable() if example.device.type == "cpu" else None
        if reason is not None:
            raise Unsupported(f"the native operators are not available: {reason}")
        if len(example) < self.batch:
            raise Unsupported(f"only {len(example)} training samples to time a batch of {self.batch}")
        try:
            converted = convert(model, example, Recipe(weights=self.weights))
        except (TypeError, ValueError) as error:
            raise Unsupported(str(error)) from error
        self._refuse_if_little(model, converted)
        return converted

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        from leanmark_kernels.convert import Converted

        converted = next((part for part in after.modules() if isinstance(part, Converted)), None)
        if converted is None:
            raise TookNoEffect(f"{type(after).__name__} was not converted")
        own = [choice for choice in converted.choices if choice.operator]
        present = converted.own_layers()
        if not present or len(present) < len(own):
            raise TookNoEffect(f"{len(own)} layers were chosen to be packed, and {len(present)} are")
        return {
            "layers": {choice.layer: _facts(choice) for choice in converted.choices},
            "own": len(own),
            "share": share(before, converted, self.weights),
            "output_error": converted.error,
            "untraced": {one.module: one.reason for one in converted.untraced},
            "left_alone": {one.module: one.reason for one in converted.left_alone},
            "failed": {choice.layer: dict(choice.failed) for choice in converted.choices if choice.failed},
        }

    def doubts(self, verified: Mapping[str, Any]) -> tuple[Finding, ...]:
        found = []
        if verified["untraced"]:
            parts = _some(verified["untraced"])
            message = f"nothing could be fused around {parts}: torch.fx cannot follow the code"
            found.append(Finding(code="untraced", message=message))
        if verified["left_alone"]:
            found.append(Finding(code="left-alone", message=_stays(verified["left_alone"])))
        if verified["failed"]:
            message = f"kernels of leanmark that cannot run here were left out in {_some(verified['failed'])}"
            found.append(Finding(code="kernel-failed", message=message))
        return tuple(found)

    def deploy(self, step: TorchStep) -> TorchStep:
        from leanmark.techniques.autocast import Autocast

        if step.device == "cuda" and isinstance(step.module, Autocast):
            raise Unsupported("these operators do not follow autocast: put them behind bf16, not fp16")
        return step

    def verify_executed(self, executed: Executed) -> None:
        proof = self.gpu_proof if executed.device == "cuda" else self.proof
        if not any(name.startswith(proof) for name in executed.operators):
            ran = ", ".join(sorted(executed.operators))
            raise TookNoEffect(f"no operator like {proof} ran, only: {ran}")

    def _refuse_if_little(self, model: nn.Module, converted: Converted) -> None:
        if not any(choice.operator for choice in converted.choices):
            raise Unsupported(
                f"no operator of leanmark is faster than the libraries in any of {len(converted.choices)} "
                f"layers here at batch {self.batch}{_nearest(converted)}"
            )
        found = share(model, converted, self.weights)
        if found < self.least_share or not found:
            left = {one.module: one.reason for one in converted.left_alone}
            raise Unsupported(
                f"operators that read weights as {self.weights} were chosen for only {found:.0%} of this "
                f"model's weights{'; ' + _stays(left) if left else ''}"
            )


def _some(names: Iterable[str]) -> str:
    first, *others = names
    return f"{first} and {len(others)} more" if others else first


def _stays(left_alone: Mapping[str, str]) -> str:
    reason = next(iter(left_alone.values()))
    return f"the attention in {_some(left_alone)} stays torch's: {reason}"


def _nearest(converted: Converted) -> str:
    """The layer in which an operator of ours came closest, in words."""
    losses = [
        (mine.time_s / choice.timings[0].time_s, choice, mine)
        for choice in converted.choices
        for mine in choice.timings
        if mine.own
    ]
    if not losses:
        return ""
    _, choice, ours = min(losses, key=lambda loss: loss[0])
    best = choice.timings[0]
    times = f"{ours.candidate} {ours.time_s * 1e6:.1f} µs, {best.candidate} {best.time_s * 1e6:.1f} µs"
    return f"; nearest in {choice.layer} ({choice.what}): {times}"


def share(model: nn.Module, converted: Converted, weights: str) -> float:
    """Of the matrix elements of ``model``, how many our operators now read in the form ``weights``."""
    ours = sum(one.weights_count for one in converted.choices if one.operator and one.weights == weights)
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() > 1)
    return ours / total if total else 0.0


def _facts(choice: Choice) -> dict[str, Any]:
    return {
        "what": choice.what,
        "chosen": choice.chosen,
        "cached": choice.cached,
        "time_us": {one.candidate: round(one.time_s * 1e6, 2) for one in choice.timings},
        "error": {one.candidate: one.error for one in choice.timings if one.error is not None},
    }
