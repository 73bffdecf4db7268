"""Names of workloads that are one operator: ``op:conv3x3-64x56``. Pure; imports no torch.

====================================  ==================================================================
``op:conv3x3-64x56``                  3x3 convolution, 64 channels to 64, of 56x56 pixels, bias and ReLU
``op:conv3x3-64-128x56-s2``           from 64 channels to 128, stride 2; ``conv1x1``, ``conv5x5`` alike
``op:depthwise3x3-384x14``            one filter for each of 384 channels
``op:linear-1024x4096``               1024 features to 4096, with bias; the batch counts the rows
====================================  ==================================================================

Padding is half the kernel. Inputs and weights are random.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from leanmark.errors import UsageError

PREFIX = "op"

TECHNIQUES = {"conv": ("fp32", "channels_last", "kernels"), "linear": ("fp32", "kernels", "w8")}
"""What is compared where no technique is asked for; a depthwise convolution is a ``conv``."""

SMALL_SET = (
    "op:conv3x3-64x56",
    "op:conv3x3-256x14",
    "op:conv3x3-512x7",
    "op:depthwise3x3-384x14",
    "op:linear-1024x4096",
)
"""What ``pytest --benchmark -k kernels`` measures."""

_CONVOLUTION = re.compile(r"(conv|depthwise)(\d+)x(\d+)-(\d+)(?:-(\d+))?x(\d+)(?:-s(\d+))?")
_LINEAR = re.compile(r"linear-(\d+)x(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolution:
    channels: int
    out_channels: int
    kernel: int
    size: int
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    features: int
    out_features: int


Operation = Convolution | Linear


def named(name: str) -> bool:
    """Whether ``name`` is meant as one of an operator."""
    return name == PREFIX or name.startswith(f"{PREFIX}:")


def parse(name: str) -> Operation:
    """The operator that ``name`` describes.

    Raises:
        UsageError: it describes none, and how a name looks that does.
    """
    text = name.removeprefix(PREFIX).removeprefix(":")
    if match := _LINEAR.fullmatch(text):
        features, out_features = (int(part) for part in match.groups())
        operation: Operation = Linear(features=features, out_features=out_features)
        sizes = [features, out_features]
    elif match := _CONVOLUTION.fullmatch(text):
        kind, high, wide, channels, out_channels, size, stride = match.groups(default="")
        operation = Convolution(
            channels=int(channels),
            out_channels=int(out_channels or channels),
            kernel=int(high) if high == wide else 0,
            size=int(size),
            stride=int(stride or 1),
            groups=int(channels) if kind == "depthwise" else 1,
        )
        sizes = [operation.channels, operation.out_channels, operation.kernel]
        sizes += [operation.size, operation.stride]
        if operation.groups > 1 and operation.out_channels % operation.groups:
            raise UsageError(f"'{name}': {out_channels} filters are no multiple of {channels} channels")
    else:
        raise UsageError(
            f"'{name}' names no operator. Such names look like op:conv3x3-64x56, op:conv1x1-64-256x56-s2, "
            "op:depthwise3x3-384x14, op:linear-1024x4096"
        )
    if min(sizes) < 1:
        raise UsageError(f"'{name}': sizes must be at least 1, and kernels square")
    return operation


def techniques(name: str) -> tuple[str, ...]:
    """The chains that are compared on the operator ``name`` where none is asked for."""
    return TECHNIQUES["linear" if isinstance(parse(name), Linear) else "conv"]
