"""What a step was found to run. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What ran in one step.

    ``operators`` counts operators by name and, where the backend knows it, the dtype they computed in:
    ``convolution[bfloat16]``, ``QLinearConv``. ``threads`` is what the backend says it uses.
    """

    operators: Mapping[str, int]
    threads: int
    device: str
