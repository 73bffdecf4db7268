"""Chooses a kernel and its configuration by measuring on the GPU, and remembers the choice in a file.

A choice holds for a device name, a version of Triton and a problem's key. Where nothing can be measured, in
the interpreter or while a CUDA graph is captured, the first legal configuration is taken and not remembered.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch

from leanmark_kernels.triton import device_limits
from leanmark_kernels.triton.choices import choices_of
from leanmark_kernels.triton.configuration import Config, Launch
from leanmark_kernels.triton.device_limits import Limits
from leanmark_kernels.triton.kernel import Kernel

FLUSH_BYTES = 256 * 2**20
"""More than any L2 holds."""

HOLD_CYCLES = 1_000_000
"""Half a millisecond for which the GPU is held back, so that the launches behind it are queued in time."""

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to solve a problem."""

    kernel: Kernel
    config: Config

    def __str__(self) -> str:
        return f"{self.kernel.name} {self.config}"

    def launches(self, problem: Any, limits: Limits) -> Sequence[Launch]:
        return self.kernel.launches(problem, self.config, limits)


Judge = Callable[[torch.Tensor], str | None]

_judge: ContextVar[Judge | None] = ContextVar("judge", default=None)

_known: dict[tuple[str, str], Candidate] = {}
"""By device name and key: what this process chose before, found without comparing all candidates."""


def candidates(kernels: Sequence[Kernel], problem: Any, limits: Limits) -> list[Candidate]:
    """Every legal way to solve ``problem``, in the order of preference when none can be measured.

    Raises ``ValueError`` where there is none.
    """
    found = [Candidate(kernel, each) for kernel in kernels for each in kernel.legal(problem, limits)]
    if not found:
        last = kernels[-1]
        raise ValueError(
            f"no configuration of {', '.join(kernel.name for kernel in kernels)} fits "
            f"'{kernels[0].key(problem)}' on compute capability {limits.capability}; "
            f"the last one: {last.why_not(problem, last.space[-1], limits)}"
        )
    return found


def solve(kernels: Sequence[Kernel], problem: Any) -> None:
    """Write ``problem.output`` by the fastest known way; the first call for a problem measures (seconds)."""
    output: torch.Tensor = problem.output
    if output.numel() == 0:
        return
    device = output.device
    limits = device_limits.of(device)
    if device.type != "cuda":
        run(candidates(kernels, problem, limits)[0].launches(problem, limits))
        return
    with torch.cuda.device(device):
        run(choose(kernels, problem, limits).launches(problem, limits))


def choose(kernels: Sequence[Kernel], problem: Any, limits: Limits) -> Candidate:
    """The fastest candidate on the current CUDA device."""
    device_name, key = torch.cuda.get_device_name(), kernels[0].key(problem)
    known = _known.get((device_name, key))
    # Problems of one key can differ in alignment, so that what served one is not legal for the other.
    if known is not None and known.kernel.why_not(problem, known.config, limits) is None:
        return known
    found = candidates(kernels, problem, limits)
    choices = choices_of(device_name)
    remembered = choices.get(key)
    best = next((each for each in found if str(each) == remembered), None)
    if best is None and torch.cuda.is_current_stream_capturing():
        return found[0]
    if best is None:
        times = measure(found, problem, limits)
        best = min(times, key=times.__getitem__)
        choices.put(key, str(best), times[best])
    _known[device_name, key] = best
    return best


def measure(found: Sequence[Candidate], problem: Any, limits: Limits) -> dict[Candidate, float]:
    """Median milliseconds of each candidate with a cold L2, without those that the GPU has no resources for.

    Those that cannot be compiled, and those that the judge of :func:`judged` refuses, are left out too, with
    a warning that names them.

    Raises ``RuntimeError`` where nothing is left.
    """
    from triton.runtime.errors import OutOfResources

    times: dict[Candidate, float] = {}
    refused = compile_all(found, problem, limits)
    for candidate in found:
        if candidate in refused:
            continue
        try:
            why = _why_wrong(candidate, problem, limits)
            if why is None:
                times[candidate] = _median_ms(candidate, problem, limits)
            else:
                refused[candidate] = why
                warnings.warn(f"{candidate} is not taken: {why}", stacklevel=2)
        except OutOfResources as error:
            refused[candidate] = str(error)
    if not times:
        reasons = "\n".join(f"{candidate}: {why}" for candidate, why in refused.items())
        raise RuntimeError(f"no configuration runs on this GPU:\n{reasons}")
    return times


def compile_all(found: Sequence[Candidate], problem: Any, limits: Limits) -> dict[Candidate, str]:
    """Compile all of ``found`` side by side; gives those that cannot be, and why, after a warning."""
    from triton import AsyncCompileMode

    launches = {candidate: candidate.launches(problem, limits) for candidate in found}
    refused: dict[Candidate, str] = {}

    def each(candidate: Candidate, wait: bool) -> None:
        try:
            for launch in launches[candidate]:
                launch.compile(wait=wait)
        except Exception as error:  # one that some version cannot compile leaves the others to choose from
            refused[candidate] = f"{type(error).__name__}: {error}".strip()

    with ThreadPoolExecutor(_processors()) as pool, AsyncCompileMode(pool, ignore_errors=True):
        for candidate in found:
            each(candidate, wait=False)
    for candidate in found:
        if candidate not in refused:
            each(candidate, wait=True)  # raises what was ignored before; else it is there already
    for candidate, why in refused.items():
        warnings.warn(f"{candidate} cannot be compiled here: {why}", stacklevel=2)
    return refused


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def judged(judge: Judge) -> Iterator[None]:
    """Within, ``judge`` sees the output [M, N] of each candidate before it is timed.

    It says what is wrong with it, or ``None``: the fastest may be so because it is wrong.
    """
    token = _judge.set(judge)
    try:
        yield
    finally:
        _judge.reset(token)


def _why_wrong(candidate: Candidate, problem: Any, limits: Limits) -> str | None:
    """What the judge says of the first run; what is not written stays NaN."""
    judge = _judge.get()
    if judge is not None:
        problem.output.fill_(torch.nan)
    run(candidate.launches(problem, limits))
    return None if judge is None else judge(problem.output)


def _median_ms(candidate: Candidate, problem: Any, limits: Limits) -> float:
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    pairs = []
    for _ in range(ROUNDS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        launches = candidate.launches(problem, limits)
        flush.zero_()
        torch.cuda._sleep(HOLD_CYCLES)
        begin.record()
        run(launches)
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return statistics.median(float(begin.elapsed_time(end)) for begin, end in pairs)


def run(launches: Sequence[Launch]) -> None:
    for launch in launches:
        launch()
