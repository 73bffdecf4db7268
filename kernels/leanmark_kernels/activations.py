"""Activations that convolutions of ours have inside."""

from __future__ import annotations

from typing import Literal, get_args

Activation = Literal["none", "relu", "relu6"]

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
"""By the number that the operators take."""


def activation_number(operator: str, activation: str) -> int:
    """Raises ``ValueError`` for a name that is not among :data:`ACTIVATIONS`."""
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"{operator}: activation is {activation!r}; it must be one of {', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS.index(activation)
