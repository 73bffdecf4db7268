"""What is asked of our operators on a machine with AVX2, held against what was found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kernel_table import rounds
from kernel_table.rounds import Ratio, Sample
from leanmark_kernels.ceilings import Ceilings

DENSE = ("torch", "torch channels_last", "oneDNN prepacked", "torch.compile", "ONNX Runtime", "OpenVINO")
TORCH = ("torch",)
COMPILED = ("torch.compile", "ONNX Runtime", "OpenVINO")
WEIGHT_ONLY = ("torch w8 (bf16)", "ONNX Runtime w8", "OpenVINO w8")
W8A8 = ("ONNX Runtime w8a8", "OpenVINO w8a8")
SATURATING = ("ONNX Runtime int8 dynamic", "ONNX Runtime int8 static")
WINOGRAD = ("winograd F(4x4)", "winograd F(4x4) as stored", "winograd F(2x2)")

DIRECT = ("packed fp32", "packed w8", "inverted residual")
"""Those of ours that do every multiply-add of a layer in fp32. With one row and VNNI, 8-bit weights meet four
planes of bytes instead: as many multiply-adds in an instruction, so that the bound is the same."""


@dataclass(frozen=True, slots=True)
class Target:
    """In layers whose ``title`` matches: the time of the fastest of ``rivals`` over that of ``ours``, whose
    error may be ``error`` at most."""

    title: str
    ours: tuple[str, ...]
    rivals: tuple[str, ...]
    asked: float
    threads: tuple[int, ...] = (1, 2)
    error: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """``ratio`` names the rival that was the fastest; ``near`` where the interval holds what is asked, or
    where there is none. ``most`` is what the ratio would be with all multiply-adds at the machine's ceiling,
    where ours has no way around them. ``error`` is that of ours, within ``limit`` if the target has one."""

    ours: str
    asked: float
    ratio: Ratio
    verdict: Literal["met", "near", "missed"]
    error: float
    limit: float | None
    most: float | None


TARGETS = (
    Target(r"conv 3x3 (64|128|256)@\d+ batch \d", WINOGRAD, DENSE, 1.9),
    Target(r"conv 3x3 (64|128|256)@\d+ batch \d", WINOGRAD, TORCH, 2.2),
    Target(r"conv 3x3 512@7 batch \d", WINOGRAD, DENSE, 1.5, threads=(1,)),
    Target(r"conv 3x3 512@7 batch \d", WINOGRAD, DENSE, 1.3, threads=(2,)),
    Target(r".*, 80% zeros", ("sparse 1x1",), DENSE, 2.2),
    Target(r".*, 90% zeros", ("sparse 1x1",), DENSE, 4.0),
    Target(r".*, 50% zeros in 4x1 blocks", ("sparse 4x1",), DENSE, 1.6),
    Target(r"linear [14]x\d+x\d+", ("packed w8",), TORCH, 1.9),
    Target(r"linear 1x\d+x\d+", ("packed w8",), WEIGHT_ONLY, 1.05),
    Target(r"linear 1x\d+x\d+", ("packed w8",), W8A8, 1.05),
    Target(r"linear (4|8|32)x\d+x\d+", ("packed w8",), WEIGHT_ONLY, 1.4),
    Target(r"linear (4|8|32)x\d+x\d+", ("packed w8",), W8A8, 1.4),
    Target(r"linear \d+x\d+x\d+", ("w4a8",), ("ONNX Runtime w4a8",), 1.8),
    Target(r"linear \d+x\d+x\d+", ("w4a8",), ("torch w4 (bf16)",), 3.8),
    Target(r"linear (4|8|32)x\d+x\d+", ("int7 exact",), SATURATING, 1.1),
    Target(r"linear (4|8|32)x\d+x\d+", ("int8 exact",), SATURATING, 1.1),
    Target(r"conv 3x3 \d+@\d+ batch \d", ("int8 winograd", "int8 conv"), ("ONNX Runtime uint8 static",), 1.9),
    Target(r"linear (4|8)x\d+x\d+", ("packed fp32",), TORCH, 1.8),
    Target(r"depthwise .*", ("depthwise",), DENSE, 1.2),
    Target(r"inverted residual .*", ("inverted residual",), DENSE, 1.5),
    Target(r"ResNet-18 .*", ("converted",), COMPILED, 1.7, error=1e-4),
)


def outcomes(
    title: str, processes: Sequence[Sequence[Sample]], flops: int, ceilings: Ceilings
) -> Iterator[Outcome]:
    """Of every target that is for this layer and number of threads."""
    times = rounds.times(processes)
    typical = rounds.typical(times)
    errors = rounds.errors(processes)
    for target in TARGETS:
        ours_here = [name for name in target.ours if name in times]
        rivals = [name for name in target.rivals if name in times]
        wanted = ceilings.threads in target.threads and re.fullmatch(target.title, title)
        if wanted and ours_here and rivals:
            ours = min(ours_here, key=typical.__getitem__)
            rival = min(rivals, key=typical.__getitem__)
            found = rounds.ratio(rival, times[rival], times[ours])
            yield Outcome(
                ours=ours,
                asked=target.asked,
                ratio=found,
                verdict=_verdict(found, target.asked, errors[ours], target.error),
                error=errors[ours],
                limit=target.error,
                most=typical[rival] / 1e6 * ceilings.flops_per_s / flops if ours in DIRECT else None,
            )


def _verdict(
    found: Ratio, asked: float, error: float, limit: float | None
) -> Literal["met", "near", "missed"]:
    if limit is not None and not error <= limit:
        return "missed"
    if found.low is None or found.high is None:
        return "near"
    if found.low >= asked:
        return "met"
    return "missed" if found.high < asked else "near"
