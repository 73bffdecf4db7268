"""Checks of scripts/gpu_check.py: conversion on this GPU, each form of each layer, and whole models.

A form that is wrong or fails is named beside all others that are, not only where it would be chosen.
"""

from __future__ import annotations

import copy
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from leanmark.workloads.base import Workload
from leanmark_kernels.convert import WEIGHTS, Recipe, convert, place
from leanmark_kernels.convert.block import Block, describe
from leanmark_kernels.convert.choosing import relative_error
from leanmark_kernels.convert.fusion import first_inputs, fuse
from leanmark_kernels.convert.rows import candidates

RECIPES = {
    "decoder": ("w4", "w8", "fp32", "int8-exact"),
    "encoder": ("fp32", "w8", "w4", "int8-exact", "sparse"),
    "resnet": ("fp32", "int8-exact"),
    "mobilenet": ("fp32",),
}
"""The most telling first."""

BATCHES = {"decoder": (1, 32), "encoder": (4,), "resnet": (2,), "mobilenet": (2,)}


@dataclass(frozen=True, slots=True)
class Form:
    """What became of one candidate for one layer; ``why`` says what is wrong with it, or nothing is."""

    name: str
    layer: str
    error: float
    why: str = ""


def checks(models: Mapping[str, Workload], device: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """By name, of ``models`` that ``RECIPES`` knows."""
    for name, recipes in RECIPES.items():
        for batch in BATCHES[name]:
            for weights in recipes:
                if device in WEIGHTS[weights].devices:
                    call = partial(check, models[name], weights, batch, device)
                    yield f"convert {name} {weights} of {batch}", call


def check(workload: Workload, weights: str, batch: int, device: str) -> str:
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = workload.model().eval().to(device, dtype)
    if weights == "sparse":
        thinned(model)
    example = workload.dataset().train.inputs[:batch].to(device)
    example = example.to(dtype) if example.is_floating_point() else example
    recipe = Recipe(weights=weights, cache=None)
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = list(forms(model, example, recipe))
        wrong = [f"{one.name} for {one.layer}: {one.why}" for one in found if one.why]
        assert found, f"{workload} has no layer that {weights} has a form for"
        assert not wrong, "; ".join(wrong)
        converted = convert(model, example, recipe)
    chosen = [one.chosen for one in converted.choices]
    worst: dict[str, float] = defaultdict(float)
    for one in found:
        worst[one.name] = max(worst[one.name], one.error)
    errors = ", ".join(f"{name} {error:.1e}" for name, error in worst.items())
    counts = ", ".join(f"{name} {chosen.count(name)}x" for name in dict.fromkeys(chosen))
    said = "".join(f"; warned: {text}" for text in dict.fromkeys(str(one.message)[:200] for one in told))
    return f"off by {errors}; whole by {converted.error:.1e}; chosen: {counts}{said}"


def thinned(model: nn.Module) -> None:
    """Without every other block of 64 x 64 weights."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not any(side % 64 for side in layer.weight.shape):
            rows, columns = (
                torch.arange(side, device=layer.weight.device) // 64 for side in layer.weight.shape
            )
            layer.weight.data[(rows[:, None] + columns[None, :]) % 2 == 0] = 0.0


def forms(model: nn.Module, example: Tensor, recipe: Recipe) -> Iterator[Form]:
    """Each of ours for each different layer, against float64 on the inputs that the layer has."""
    original = copy.deepcopy(model)
    fused = fuse(original, "", first_inputs(original, (example.clone(),)), [])
    given = example.contiguous(memory_format=torch.channels_last) if example.dim() == 4 else example
    layers = {
        describe(block, tuple(arguments[0].shape)): (block, arguments)
        for block, arguments in first_inputs(fused, (given.clone(),)).items()
        if isinstance(block, Block)
    }
    for name, (block, arguments) in layers.items():
        exact = copy.deepcopy(block).double()(*(each.double() for each in arguments))
        weight = block.layer.weight
        assert isinstance(weight, Tensor)
        for row in candidates(block, recipe.weights, place.all_rows(example.device)):
            if row.operator is not None:
                make = partial(row.build, block, tuple(arguments[0].shape))
                error, why = judged(make, arguments, exact, recipe.limit(weight))
                yield Form(row.name, name, error, why)


def judged(
    make: Callable[[], nn.Module], arguments: tuple[Tensor, ...], exact: Tensor, limit: float
) -> tuple[float, str]:
    """How far off it is, and what is wrong with it."""
    try:
        error = relative_error(make()(*arguments), exact)
    except Exception as failure:  # of any kind: it is the result, and the next form is tried
        return 0.0, f"{type(failure).__name__}: {failure}".partition("\n")[0]
    return error, "" if error <= limit else f"off by {error:.1e}, {limit:.0e} is allowed"
