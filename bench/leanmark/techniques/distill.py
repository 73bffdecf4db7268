"""Knowledge distillation: a smaller student learns from the outputs of the model so far."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leanmark.workloads.base import Split


@dataclass(frozen=True, slots=True)
class Distill(Technique):
    """Train the workload's student with the loss of Hinton, Vinyals & Dean (2015, arXiv:1503.02531).

    ``alpha`` weighs the teacher's softened outputs against the labels, ``temperature`` softens both
    sides. The teacher runs once over the training set, so inputs are not augmented.
    """

    temperature: float = 4.0
    alpha: float = 0.9

    retrains: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0.0:
            raise ValueError(f"temperature must be above 0, not {self.temperature}")
        if not 0.0 <= self.alpha <= 1.0:
            raise ValueError(f"alpha must lie between 0 and 1, not {self.alpha}")

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        workload = context.workload
        student = workload.student(context.seed)
        split = workload.dataset().train
        recipe = workload.recipe or workload.finetune
        recipe = dataclasses.replace(recipe, seed=recipe.seed + context.seed)
        context.train(student, taught(model, split), recipe, self.loss())
        return student

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        teacher, student = (sum(p.numel() for p in model.parameters()) for model in (before, after))
        if student >= teacher:
            raise TookNoEffect(
                f"the student {type(after).__name__} has {student} parameters, its teacher {teacher}"
            )
        return {
            "teacher": type(before).__name__,
            "student": type(after).__name__,
            "parameters_before": teacher,
            "parameters_after": student,
        }

    def loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """alpha T^2 KL(teacher || student) + (1 - alpha) cross-entropy.

        The function takes logits [B, C] and the targets [B, C + 1] of :func:`taught`.
        """
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        def distillation_loss(outputs: Tensor, targets: Tensor) -> Tensor:
            logits = outputs.float()
            soft = kl_div(
                log_softmax(logits / self.temperature, dim=1),
                log_softmax(targets[:, :-1] / self.temperature, dim=1),
                reduction="batchmean",
                log_target=True,
            )
            hard = cross_entropy(logits, targets[:, -1].long())
            return self.alpha * self.temperature**2 * soft + (1.0 - self.alpha) * hard

        return distillation_loss


def taught(teacher: nn.Module, split: Split) -> Split:
    """``split`` with targets [N, C + 1] float32: the teacher's logits, then the class index.

    Raises:
        Unsupported: the targets are no class indices, or the teacher gives no row of logits per input.
    """
    import torch

    from leanmark.workloads.base import Split
    from leanmark.workloads.training import outputs

    if split.targets.dtype != torch.int64 or split.targets.dim() != 1:
        raise Unsupported("distillation softens class probabilities: this workload's targets are no classes")
    logits = outputs(copy.deepcopy(teacher).eval(), split.inputs)
    if logits.dim() != 2:
        raise Unsupported(f"distillation needs logits [N, C], the teacher gives {list(logits.shape)}")
    labels = split.targets.to(torch.float32).unsqueeze(1)  # exact: class indices are small
    return Split(inputs=split.inputs, targets=torch.cat([logits, labels], dim=1))
