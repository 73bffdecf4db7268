"""Takes the fastest candidate for every block of a model, by measurement."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from leanmark_kernels.convert import place, triples
from leanmark_kernels.convert.block import Block, describe
from leanmark_kernels.convert.candidates import Candidate
from leanmark_kernels.convert.choices import Choice, Timing, TimingCache
from leanmark_kernels.convert.fusion import first_inputs
from leanmark_kernels.convert.rows import WEIGHTS, candidates
from leanmark_kernels.convert.timing import MOST_BESIDE, interleaved
from leanmark_kernels.convert.triples import Triple

SPARSE = 0.25
"""From this share of zeros on, it is part of what the work is."""


class Rules(Protocol):
    """What of a recipe decides; see there."""

    @property
    def weights(self) -> str: ...
    @property
    def rounds(self) -> int: ...
    @property
    def cache(self) -> Path | None: ...
    def limit(self, weight: Tensor) -> float: ...


@dataclass(frozen=True, slots=True)
class _Seat:
    """A block at its place, and the arguments it is called with."""

    name: str
    block: Block
    arguments: tuple[Tensor, ...]
    model_bytes: int

    @property
    def beside(self) -> int:
        return _beside(self.model_bytes - self.weight.nbytes)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.arguments[0].shape)

    @property
    def weight(self) -> Tensor:
        """Of a pool, which has none, nothing on the device of what it pools."""
        weight = getattr(self.block.layer, "weight", None)
        return self.arguments[0].new_empty(0) if weight is None else weight

    @property
    def what(self) -> str:
        words = describe(self.block, self.shape)
        zeros = float((self.weight == 0).float().sum()) / max(1, self.weight.numel())
        if self.weight.dtype != torch.float32:
            words += f" in {str(self.weight.dtype).removeprefix('torch.')}"
        return words if zeros < SPARSE else f"{words}, {zeros:.2f} zeros"


def choose(converted: nn.Module, inputs: tuple[Tensor, ...], rules: Rules) -> tuple[Choice, ...]:
    """Replace every ``Block`` in ``converted`` that it calls on ``inputs``; says what by."""
    captured = first_inputs(converted, inputs)
    device = next((each.device for each in converted.parameters()), torch.device("cpu"))
    cache = TimingCache(rules.cache, place.machine(device))
    model_bytes = sum(each.nbytes for each in converted.parameters())
    choices: dict[str, Choice] = {}
    for name, block in list(converted.named_modules()):
        if isinstance(block, Block) and block in captured:
            module, choices[name] = _choose_one(
                _Seat(name, block, captured[block], model_bytes), rules, cache
            )
            _put(converted, name, module)
    for name, triple in list(converted.named_modules()):
        if isinstance(triple, Triple):
            parts = [key for key in choices if key.startswith(f"{name}.")]
            apart = tuple(choices[key] for key in parts)
            own_bytes = sum(
                each.nbytes for block in triple.originals or () if block for each in block.parameters()
            )
            beside = _beside(model_bytes - own_bytes)
            module, choices[name] = _choose_triple(
                name, triple, captured[triple], apart, beside, rules, cache
            )
            triple.originals = None
            if module is not triple:
                choices = {key: one for key, one in choices.items() if key not in parts}
            _put(converted, name, module)
    cache.save()
    return tuple(choices.values())


def _beside(rest: int) -> int:
    """Bytes of the ``rest`` of a model, as a power of two: the timings of a layer serve similar models."""
    return min(MOST_BESIDE, 1 << max(0, rest).bit_length() >> 1)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _choose_triple(
    name: str,
    triple: Triple,
    arguments: tuple[Tensor, ...],
    apart: tuple[Choice, ...],
    beside: int,
    rules: Rules,
    cache: TimingCache,
) -> tuple[nn.Module, Choice]:
    """The one operator for all three, or ``triple`` with what was chosen for them one by one."""
    fused = triple.fused().eval()
    modules = {"one by one": triple, triples.NAME: fused}
    what = "; ".join(choice.what for choice in apart)
    # what "one by one" takes depends on what the three became
    parts = "; ".join(f"{choice.what} by {choice.chosen}" for choice in apart)
    key = f"{rules.weights}: {parts}, beside {beside} bytes"
    known = cache.get(key, list(modules))
    times = known or _timed(modules, arguments, rules.rounds, beside)
    cache.put(key, times)
    exact = triple.exact(arguments[0].double())
    error = relative_error(fused(*arguments), exact)
    limit = max(rules.limit(parameter) for parameter in fused.buffers())
    refused = None if error <= limit else f"its error of {error:.1e} is above {limit:.0e}"
    if WEIGHTS[rules.weights].always:
        refused = f"it has its weights in fp32, not as {rules.weights}"
    taken = refused is None and times[triples.NAME] < times["one by one"]
    timings = (
        Timing("one by one", times["one by one"]),
        Timing(triples.NAME, times[triples.NAME], own=True, error=error, refused=refused),
    )
    return fused if taken else triple, Choice(
        layer=name.removeprefix("body").removeprefix("."),
        what=what,
        chosen=triples.NAME if taken else "one by one",
        operator=triples.OPERATOR if taken else None,
        weights="fp32",
        weights_count=sum(choice.weights_count for choice in apart) if taken else 0,
        timings=tuple(sorted(timings, key=lambda one: one.time_s)),
        cached=known is not None,
    )


def _choose_one(seat: _Seat, rules: Rules, cache: TimingCache) -> tuple[nn.Module, Choice]:
    device = seat.weight.device
    rows = list(candidates(seat.block, rules.weights, place.all_rows(device)))
    modules = {row.name: row.build(seat.block, seat.shape).eval() for row in rows}
    failed = _failed(rows, modules, seat) if device.type == "cuda" else {}
    rows = [row for row in rows if row.name not in failed]
    modules = {row.name: modules[row.name] for row in rows}
    key = f"{rules.weights}: {seat.what}, beside {seat.beside} bytes"
    known = cache.get(key, list(modules))
    times = known or _timed(modules, seat.arguments, rules.rounds, seat.beside)
    cache.put(key, times)
    preferred = [row for row in rows if row.weights != "fp32"] if WEIGHTS[rules.weights].always else []
    order = sorted(rows, key=lambda row: (row not in preferred, times[row.name]))
    chosen, judged = _first_sound(order, modules, seat, rules.limit(seat.weight))
    timings = [
        replace(judged.get(row.name, Timing(row.name, 0.0)), time_s=times[row.name], own=bool(row.operator))
        for row in order
    ]
    return modules[chosen.name], Choice(
        layer=seat.name.removeprefix("body").removeprefix("."),
        what=seat.what,
        chosen=chosen.name,
        operator=chosen.operator,
        weights=chosen.weights,
        weights_count=seat.weight.numel(),
        timings=tuple(sorted(timings, key=lambda one: one.time_s)),
        cached=known is not None,
        failed=failed,
    )


def _failed(rows: list[Candidate], modules: Mapping[str, nn.Module], seat: _Seat) -> dict[str, str]:
    """Which of our kernels, compiled here for this GPU, cannot be, and why: the others are left to choose."""
    failed: dict[str, str] = {}
    for row in rows:
        if row.operator is not None:
            try:
                modules[row.name](*seat.arguments)
            except Exception as error:  # of Triton, of its compilers or of the driver
                failed[row.name] = f"{type(error).__name__}: {error}".partition("\n")[0]
                message = f"{seat.name}: {seat.what}: {row.name} cannot run here: {failed[row.name]}"
                warnings.warn(message, stacklevel=2)
    return failed


def _timed(
    modules: Mapping[str, nn.Module], arguments: tuple[Tensor, ...], rounds: int, beside: int
) -> dict[str, float]:
    calls: dict[str, Callable[[], object]] = {
        name: partial(module, *arguments) for name, module in modules.items()
    }
    if arguments[0].device.type != "cuda":
        return interleaved(calls, rounds, beside, arguments)
    from leanmark_kernels.convert import gpu_timing

    with torch.cuda.device(arguments[0].device):
        return gpu_timing.interleaved(calls, rounds)


def _first_sound(
    order: list[Candidate], modules: dict[str, nn.Module], seat: _Seat, limit: float
) -> tuple[Candidate, dict[str, Timing]]:
    """The first row that is a library or exact enough, and the errors found on the way to it."""
    exact: Tensor | None = None
    judged: dict[str, Timing] = {}
    for row in order:
        if row.operator is None:
            return row, judged
        if exact is None:
            exact = copy.deepcopy(seat.block).double()(*(each.double() for each in seat.arguments))
        error = relative_error(modules[row.name](*seat.arguments), exact)
        refused = None if error <= limit else f"its error of {error:.1e} is above {limit:.0e}"
        judged[row.name] = Timing(row.name, 0.0, error=error, refused=refused)
        if refused is None:
            return row, judged
    raise AssertionError("torch's own layer is always a candidate")


def relative_error(output: Tensor, exact: Tensor) -> float:
    """The largest difference over the largest magnitude of ``exact``; NaN where either has one."""
    if exact.numel() == 0:
        return 0.0
    largest = torch.clamp(exact.abs().max(), min=torch.finfo(torch.float32).tiny)
    return float((output.double() - exact).abs().max() / largest)
