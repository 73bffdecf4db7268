"""The one interface of a technique. Importing a technique imports no torch; applying it does."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from leanmark.record import Finding, Phase

if TYPE_CHECKING:
    from torch import nn

    from leanmark.models.executed import Executed
    from leanmark.techniques.torch_step import TorchStep
    from leanmark.workloads.base import Recipe, Split, Workload
    from leanmark.workloads.training import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a technique may use: the workload, the model as it was before any technique, a seed.

    ``device`` is where the changed model will run: ``cpu`` or ``cuda``. It is handed over on the processor.
    ``trainer`` trains as ``workloads.training.train`` does, but may end early: see ``train``.
    """

    workload: Workload
    baseline: nn.Module
    seed: int = 0
    device: str = "cpu"
    trainer: Callable[[nn.Module, Split, Recipe, Loss], None] | None = None

    def train(self, model: nn.Module, split: Split, recipe: Recipe, loss: Loss) -> None:
        """Train ``model`` in place by ``recipe``, in a run to a quality target until it is good enough."""
        from leanmark.workloads.training import train

        (self.trainer or train)(model, split, recipe, loss)


class Technique(ABC):
    """Subclasses are frozen dataclasses whose fields are the options; they check them at birth.

    A technique of level ``module`` maps an ``nn.Module`` to another; one of level ``graph`` maps an
    ONNX file to another and ends the part of a chain that torch can run. It must leave its input and
    the process as they were: no global switch, no changed default.
    """

    level: ClassVar[Literal["module", "graph"]] = "module"
    backends: ClassVar[tuple[str, ...]] = ("eager", "onnxruntime", "openvino")
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    phases: ClassVar[tuple[Phase, ...]] = ("inference", "training")
    lowers_precision: ClassVar[bool] = False
    """Whether operators may compute in another dtype than float32 because of it."""
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """What must be installed to apply it."""
    retrains: ClassVar[bool] = False
    repacks: ClassVar[bool] = False
    """Whether it only stores weights in another form: parameters and MACs then stay those from before."""
    tolerance: ClassVar[float] = 0.0
    """Largest relative L2 error of the outputs that it may cause, where it does not retrain."""
    refusal: ClassVar[str] = "not supported"
    """Why the backends, devices and phases that are missing above are missing; part of the skip reason."""

    def apply(self, model: nn.Module, context: Context) -> nn.Module:
        """The changed model; ``model`` itself stays as it was.

        Raises:
            Unsupported: the technique does not fit this model, and why.
        """
        raise TypeError(f"{type(self).__name__} does not work on modules")

    def verify(self, before: nn.Module, after: nn.Module) -> Mapping[str, Any]:
        """Facts that prove the technique is in ``after``.

        Raises:
            TookNoEffect: it is not.
        """
        raise TypeError(f"{type(self).__name__} does not work on modules")

    def deploy(self, step: TorchStep) -> TorchStep:
        """The changed step, in the process that measures it and on its device: for what no file can hold.

        Raises:
            Unsupported: the technique does not fit this model or device, and why.
            TookNoEffect: it was applied and is not there.
        """
        return step

    def apply_graph(self, source: Path, target: Path, context: Context) -> None:
        """Write the changed ONNX graph to ``target``.

        Raises:
            Unsupported: the technique does not fit this graph, and why.
        """
        raise TypeError(f"{type(self).__name__} does not work on graphs")

    def verify_graph(self, source: Path, target: Path) -> Mapping[str, Any]:
        """Facts that prove the technique is in ``target``.

        Raises:
            TookNoEffect: it is not.
        """
        raise TypeError(f"{type(self).__name__} does not work on graphs")

    def doubts(self, verified: Mapping[str, Any]) -> tuple[Finding, ...]:
        """What a reader of the numbers should know, from the facts that ``verify`` found."""
        return ()

    def verify_executed(self, executed: Executed) -> None:
        """Check what really ran: called in the measuring process, before and after the rounds.

        Raises:
            TookNoEffect: the operators or dtypes that ran are not those the technique promises.
        """
