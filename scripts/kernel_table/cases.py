"""All layers and models of the table."""

from __future__ import annotations

from collections.abc import Collection

import torch

from kernel_table import inverted, layers, models
from kernel_table.inverted import InvertedCase
from kernel_table.layers import Case
from kernel_table.models import ModelCase

AnyCase = Case | InvertedCase | ModelCase


def every() -> list[AnyCase]:
    """With the same weights in every process."""
    torch.manual_seed(0)
    return [*layers.cases(), *inverted.cases(), *models.cases()]


def called(titles: Collection[str]) -> list[AnyCase]:
    return [case for case in every() if case.title in titles]
