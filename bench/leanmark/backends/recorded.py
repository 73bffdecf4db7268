"""A step of torch that is recorded once and replayed in one launch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanmark.backends.base import Array, Executable
from leanmark.devices.base import Accelerator, Step
from leanmark.errors import TookNoEffect
from leanmark.models.executed import Executed

if TYPE_CHECKING:
    from torch import Tensor

    from leanmark.backends.torch_executable import TorchExecutable

REPLAYED = "graph_replay"
"""What is counted where a recording gave the outputs of the step it was made from."""

_CLOSE = 1e-3


class Recorded(Executable):
    """``step`` replays; everything else is asked of the executable that was recorded."""

    def __init__(self, recorded: TorchExecutable, accelerator: Accelerator) -> None:
        self._recorded = recorded
        self._accelerator = accelerator
        self._outputs: Tensor | None = None
        self._replay: Step | None = None

    def step(self) -> None:
        if self._replay is None:
            self._replay = self._accelerator.capture(self._once)
        self._replay()

    def predict(self, inputs: Array) -> NDArray[np.float32]:
        return self._recorded.predict(inputs)

    def executed(self) -> Executed:
        """The operators of the step as it was recorded, and that the replay does the same."""
        self.step()
        self._compare()
        executed = self._recorded.executed()
        return replace(executed, operators={**executed.operators, REPLAYED: 1})

    def memory_parts(self) -> Mapping[str, int]:
        return self._recorded.memory_parts()

    def _once(self) -> None:
        self._outputs = self._recorded.outputs()
        if self._outputs is None:
            self._recorded.step()

    def _compare(self) -> None:
        if self._outputs is None:
            return
        replayed = self._outputs.float().clone()
        expected = self._recorded.outputs()
        assert expected is not None, "a step has outputs or has none"
        error = float((replayed - expected.float()).norm() / expected.float().norm().clamp_min(1e-12))
        if not error <= _CLOSE:
            raise TookNoEffect(f"the recording's outputs are off by {error:.2g} of those of its step")
