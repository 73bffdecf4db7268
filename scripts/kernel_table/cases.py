"""All layers of the table."""

from __future__ import annotations

from collections.abc import Collection

import torch

from kernel_table import inverted, layers
from kernel_table.inverted import InvertedCase
from kernel_table.layers import Case


def every() -> list[Case | InvertedCase]:
    """With the same weights in every process."""
    torch.manual_seed(0)
    return [*layers.cases(), *inverted.cases()]


def called(titles: Collection[str]) -> list[Case | InvertedCase]:
    return [case for case in every() if case.title in titles]
