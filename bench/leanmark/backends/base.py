"""The one interface of a backend. Importing it imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from leanmark.devices.base import Accelerator, Device
from leanmark.machine.counters import METRICS, Counted
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.record import Phase

if TYPE_CHECKING:
    from torch import nn

    from leanmark.techniques.base import Technique
    from leanmark.workloads.base import Workload

Array = NDArray[np.float32] | NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step does: ``inputs`` [batch, ...] and, for training, ``targets`` and the workload.

    ``techniques`` are those of the chain, in its order: some act on the device only, see ``deploy``.
    """

    phase: Phase
    inputs: Array
    targets: Array | None
    threads: int
    device: str
    workload: Workload | None = None
    techniques: tuple[Technique, ...] = ()
    accelerator: Accelerator = field(default_factory=Accelerator)


class Executable(ABC):
    """A model made ready to run on fixed inputs."""

    @abstractmethod
    def step(self) -> None:
        """One inference, or one training step (forward, backward, optimizer)."""

    @abstractmethod
    def predict(self, inputs: Array) -> NDArray[np.float32]:
        """Outputs [N, ...] for ``inputs`` [N, ...], any N, with the model as it was when opened."""

    @abstractmethod
    def executed(self) -> Executed:
        """What one step runs, found by running or by reading the optimised graph."""

    def memory_parts(self) -> Mapping[str, int]:
        """Bytes of what is known to be held: ``weights`` and, in training, ``gradients``,
        ``optimizer_state`` and ``activations`` (saved for the backward pass). Empty where the backend
        cannot tell."""
        return {}

    def counted(self) -> Counted:
        """What one step does, as far as the backend can count it without a clock. Runs a few steps."""
        return Counted(counts={}, missing=dict.fromkeys(METRICS[:-1], "this backend does not count"))


class Backend(ABC):
    """Turns a prepared model into something that runs."""

    exports: ClassVar[bool] = False
    """Whether building writes the model in another form: a technique has to pay that time back."""
    phases: ClassVar[tuple[Phase, ...]] = ("inference",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    refusal: ClassVar[str] = "this backend only runs inference on processors"

    @abstractmethod
    def runtime_modules(self, phase: Phase) -> tuple[str, ...]:
        """What a process must import to run this phase: its memory is reported apart."""

    @abstractmethod
    def unavailable(self) -> str | None:
        """Why this backend cannot be used here, or ``None``. Does not import the backend."""

    def unavailable_on(self, device: str) -> str | None:
        """The same for ``device`` alone."""
        return self.unavailable()

    def accelerator(self, device: Device, name: str) -> Accelerator:
        """What this backend's steps run on, on the ``device`` of this ``name``."""
        return device.accelerator()

    @abstractmethod
    def build(self, module: nn.Module, artifact: Artifact, example: Array) -> None:
        """Write what this backend needs of ``module`` into ``artifact``; ``example`` is one batch.

        Raises:
            Unsupported: the module cannot be brought to this backend, and why.
        """

    @abstractmethod
    def open(self, artifact: Artifact, work: Work) -> Executable:
        """Load the artifact and make it ready; the first step may still compile or allocate."""

    @abstractmethod
    def shipped_bytes(self, artifact: Artifact) -> int:
        """Size of what a user would ship: the weights as saved by this backend."""
