"""Whole models, converted by ``leanmark_kernels.convert`` and by the libraries. Their weights are random."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from kernel_table import contenders, graphs, runtimes
from kernel_table.contenders import Contender
from leanmark.workloads.mobilenet import MobileNetV2
from leanmark.workloads.resnet import ResNet18
from leanmark_kernels.convert import Recipe, convert

MODELS: dict[str, ResNet18 | MobileNetV2] = {"ResNet-18": ResNet18(), "MobileNetV2": MobileNetV2()}


@dataclass(frozen=True, slots=True)
class ModelCase:
    """``model`` on one image of ``shape``, in place of a ``layers.Case``."""

    title: str
    model: nn.Module
    shape: tuple[int, ...]
    flops: int

    def input(self) -> Tensor:
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(0))

    def contenders(self, with_compiled: bool) -> list[Contender]:
        x = self.input()
        nhwc = x.contiguous(memory_format=torch.channels_last)
        channels_last = copy.deepcopy(self.model)
        channels_last.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # every process chooses anew, so that the interval covers what choosing does
        converted = convert(self.model, x, Recipe(cache=None))
        found = [
            contenders.of_module("torch", self.model, x),
            contenders.of_module("torch channels_last", channels_last, nhwc),
            contenders.of_module("converted", converted, x, ours=True),
            *runtimes.every(graphs.exported(self.model, x), x, tuple(self.model(x).shape)),
        ]
        if with_compiled:
            found.append(contenders.compiled(self.model, nhwc))
        return found

    def exact(self) -> Tensor:
        output: Tensor = copy.deepcopy(self.model).double()(self.input().double())
        return output


def cases() -> Iterator[ModelCase]:
    for name, workload in MODELS.items():
        model, shape = workload.model().eval(), (1, 3, workload.image, workload.image)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(shape))
        yield ModelCase(f"{name} at {workload.image} batch 1", model, shape, counter.get_total_flops())
