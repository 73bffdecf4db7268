"""The child's side: holds one prepared case and does what it is asked, one request at a time."""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmark import chain, registry
from leanmark.backends.base import Backend, Executable, Work
from leanmark.devices.base import Accelerator
from leanmark.errors import TookNoEffect
from leanmark.machine.core_speed import hash_bytes_per_s
from leanmark.machine.disturbance import block_flags, unobserved
from leanmark.machine.probes import BlockProbe
from leanmark.meters.host_memory import Held, HostMemory
from leanmark.models import fidelity
from leanmark.models.artifact import Artifact, Samples
from leanmark.protocol import failure, messages
from leanmark.protocol.process import die_with_parent, pin
from leanmark.record import Case, Quality
from leanmark.worker import counting, plausible, runner

if TYPE_CHECKING:
    from leanmark.workloads.base import Workload


def spawned(interpreter: str, imported: str) -> None:
    """Serve over the file descriptor of the command line, with what the kernel said of this process.

    Everything since ``imported`` is leanmark's own.
    """
    die_with_parent(int(sys.argv[2]))
    for kind in registry.KINDS:
        registry.rows(kind)  # reads the metadata of every installed package
    gc.collect()  # what importing leanmark left behind is no part of it
    before = Held.read(imported)
    tare = Tare(Held.read(interpreter), before, own=HostMemory().held().less(before))
    serve(Connection(socket.socket(fileno=int(sys.argv[1])).detach()), tare)


def serve(connection: Connection, tare: Tare | None = None) -> None:
    """Answer requests until the other side closes the connection."""
    registry.search_here()  # a user's model may be defined there, and is unpickled here
    session = Session(connection.send, tare)
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(_answer(session, request))


def _answer(session: Session, request: messages.Request) -> object:
    try:
        return session.handle(request)
    except (Exception, SystemExit) as error:  # it ends in a record, and the worker goes on
        return failure.as_message(error)


@dataclass(frozen=True, slots=True)
class _Opened:
    case: Case
    executable: Executable
    device: Accelerator


@dataclass(frozen=True, slots=True)
class Tare:
    """What a process held before any import, with the backend imported, and what of it is leanmark's own."""

    interpreter: Held
    imported: Held
    own: Held


class Session:
    """The state of one worker: at most one open case. Only a spawned one was weighed."""

    def __init__(
        self,
        tell: Callable[[messages.Notice], None] = lambda notice: None,
        tare: Tare | None = None,
    ) -> None:
        self._tell = tell
        self._tare = tare
        self._open: _Opened | None = None
        self._probe: BlockProbe | None = None

    def handle(self, request: messages.Request) -> object:
        match request:
            case messages.Prepare() | messages.TrainToQuality():
                return prepare(request, self._tell)
            case messages.PeakMemory():
                assert self._tare is not None, "a forked worker has its parent's pages"
                return peak_memory(request, self._tare)
            case messages.Open():
                return self.open(request)
            case messages.RunBlock(loops):
                return self.run_block(loops)
            case messages.RunWindow() | messages.RunPaced():
                return self.run_window(request)
            case messages.RunSamples(count):
                return tuple(runner.run_samples(self.opened.executable.step, count, self.opened.device))
            case messages.CheckAgain():
                return check_again(self.opened)
            case messages.CountStep():
                return counting.count(self.opened.executable, self.opened.case.threads)
            case messages.LoadedFrom(folder, besides):
                return loaded_from(Path(folder), tuple(map(Path, besides)))

    def run_window(self, request: messages.RunWindow | messages.RunPaced) -> messages.Window:
        step, device = self.opened.executable.step, self.opened.device
        if isinstance(request, messages.RunPaced):
            return runner.run_paced(step, request.seconds, request.rate_hz, device)
        return runner.run_window(step, request.seconds, device)

    def run_block(self, loops: int) -> messages.BlockTime:
        """One block between two looks at what could have disturbed it."""
        opened, probe = self.opened, self._probe
        assert probe is not None, "an open case has a probe"
        step, device = opened.executable.step, opened.device
        if device.queues:
            step()  # others had its memory and caches meanwhile
        before = probe.read()
        block = runner.run_block(step, loops, device)
        after = probe.read()
        speed = None if device.queues else hash_bytes_per_s()
        block = runner.with_device_times(step, loops, block, device)
        device.release()
        flags = block_flags(before, after)
        return replace(block, flags=flags, clock_hz=after.clock_hz, hash_bytes_per_s=speed)

    @property
    def opened(self) -> _Opened:
        if self._open is None:
            raise RuntimeError("no case is open")
        return self._open

    def open(self, request: messages.Open) -> messages.Opened:
        """Load, check, warm up. Checks come first: a wrong model's steps are never timed."""
        _settle(request.place, request.case.backend)
        artifact = Artifact.of(Path(request.folder), request.case.technique)
        device = _device(request.case)
        self._tell(messages.Notice("begins"))
        start = time.perf_counter()
        executable = _load(request.case, request.workload, artifact, request.place, device)
        executable.step()
        device.synchronize()
        cold_start_s = time.perf_counter() - start
        self._tell(messages.Notice("ended"))
        plausible.seconds(cold_start_s, "the first step")
        opened = _Opened(request.case, executable, device)
        rival = Path(request.rival_folder) if request.rival_folder else None
        quality = _judge(opened, Path(request.folder), rival, full=request.judge_quality)
        warm = runner.warm_up(executable.step, request.warmup_s, request.block_s, device)
        executed = {**assert_executed(opened), **device.facts()}
        gc.collect()
        gc.disable()  # a collection inside a block would be billed to whichever variant it hits
        self._open = opened
        self._probe = BlockProbe(request.place.cores[0])  # now that all threads of the backend run
        return messages.Opened(
            cold_start_s=cold_start_s,
            step_s=warm.step_s,
            loops=warm.loops,
            steady=warm.steady,
            executed=executed,
            quality=quality,
            unobserved=unobserved(self._probe.read()),
        )


def prepare(
    request: messages.Prepare | messages.TrainToQuality, tell: Callable[[messages.Notice], None]
) -> messages.Ready | messages.Trained:
    """Apply one link of a chain, make the baseline, or only see what training takes to get good enough."""
    _settle(request.place, "eager")
    from leanmark.worker import quality_run
    from leanmark.worker.prepare import Stopwatch, run

    workload, links = load_workload(request.workload), chain.parse(request.chain)
    if isinstance(request, messages.TrainToQuality):
        device = registry.load("devices", request.device)().accelerator()
        return quality_run.run(workload, links, request.target, request.seed, tell, device)
    return run(
        workload,
        request.workload.name,
        links,
        Path(request.folder),
        request.backends,
        Stopwatch(tell),
        request.device,
    )


def peak_memory(request: messages.PeakMemory, tare: Tare) -> messages.MemoryReading:
    """Resident memory of a process that does nothing but run this case, less what leanmark takes."""
    meter = HostMemory(own=tare.own)
    executable, device = load_case(request)
    loaded = meter.resident_bytes()
    device.start_memory()
    token = meter.start()
    for _ in range(request.steps):
        executable.step()
    device.synchronize()
    peak = meter.stop(token)()
    on_device = device.memory()
    gc.collect()
    host = {
        "interpreter_memory_bytes": tare.interpreter.resident,
        "leanmark_memory_bytes": tare.own.resident,
        **meter.steady(),
    }
    return messages.MemoryReading(
        import_bytes=tare.imported.resident,
        loaded_bytes=loaded,
        peak_bytes=round(peak.value),
        host=host,
        parts=executable.memory_parts(),  # after the peak: asking runs a step
        device=on_device,
    )


def load_case(request: messages.PeakMemory) -> tuple[Executable, Accelerator]:
    """The case of a request, ready to run in this process, and what it runs on."""
    _settle(request.place, request.case.backend)
    artifact = Artifact.of(Path(request.folder), request.case.technique)
    device = _device(request.case)
    return _load(request.case, request.workload, artifact, request.place, device), device


def load_workload(spec: messages.WorkloadSpec) -> Workload:
    """The workload a spec names."""
    if spec.data is None:
        name, _, parameters = spec.name.partition(":")
        kind = registry.load("workloads", name)
        workload: Workload = kind(parameters) if parameters else kind()
        return workload
    custom: Workload = registry.load_target("leanmark.workloads.custom:Custom")(spec.name, spec.data)
    return custom


def assert_executed(opened: _Opened) -> Mapping[str, Any]:
    """Facts about one step; raises where they are not what the case says."""
    executed = opened.executable.executed()
    if executed.threads != opened.case.threads:
        raise TookNoEffect(f"{executed.threads} threads are in use, not {opened.case.threads}")
    if executed.device != opened.case.device:
        raise TookNoEffect(f"it ran on {executed.device}, not on {opened.case.device}")
    techniques = [chain.build(link) for link in chain.parse(opened.case.technique)]
    for technique in techniques:
        technique.verify_executed(executed)
    if not any(technique.lowers_precision for technique in techniques):
        fidelity.check_float32(executed.operators)
    return {
        "operators": dict(executed.operators),
        "threads": executed.threads,
        "device": executed.device,
        "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
    }


def loaded_from(folder: Path, besides: tuple[Path, ...]) -> tuple[str, ...]:
    """The modules of this process whose file lies in ``folder`` and in none of ``besides``."""
    files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    paths = {name: Path(file).resolve() for name, file in files.items() if file}
    return tuple(
        name
        for name, path in paths.items()
        if path.is_relative_to(folder) and not any(path.is_relative_to(one) for one in besides)
    )


def check_again(opened: _Opened) -> Mapping[str, Any]:
    """After the rounds: nothing is still being worked on, and what runs is still what the case says."""
    if opened.case.threads == 1:  # helper threads of some libraries spin on for a while
        plausible.idle()
    return assert_executed(opened)


def _settle(place: messages.Place, backend: str) -> None:
    pin(place.cores)
    if "torch" in registry.load("backends", backend)().runtime_modules("inference"):  # others stay free of it
        import torch

        torch.set_num_threads(place.threads)


def _device(case: Case) -> Accelerator:
    return _backend(case).accelerator(registry.load("devices", case.device)(), case.device)


def _backend(case: Case) -> Backend:
    backend: Backend = registry.load("backends", case.backend)()
    return backend


def _load(
    case: Case,
    spec: messages.WorkloadSpec,
    artifact: Artifact,
    place: messages.Place,
    device: Accelerator,
) -> Executable:
    samples = Samples.load(artifact.folder.parent)
    training = case.phase == "training"
    chosen = np.arange(case.batch) % len(samples.batch_inputs)  # a batch larger than what is kept repeats it
    work = Work(
        phase=case.phase,
        inputs=samples.batch_inputs[chosen],
        targets=samples.batch_targets[chosen] if training else None,
        threads=place.threads,
        device=case.device,
        workload=load_workload(spec) if training else None,
        techniques=tuple(chain.build(link) for link in chain.parse(case.technique)),
        accelerator=device,
    )
    return _backend(case).open(artifact, work)


def _judge(opened: _Opened, folder: Path, rival: Path | None, *, full: bool) -> Quality | None:
    """Assert that the outputs are still the model's; with ``full``, on all test samples, judge them too."""
    samples = Samples.load(folder)
    count = len(samples.test_inputs) if full else min(64, len(samples.test_inputs))
    plausible.repeatable(opened.executable, samples.test_inputs)
    outputs = opened.executable.predict(samples.test_inputs[:count])
    error = fidelity.check(opened.case, outputs, folder)
    if not full:
        return None
    if rival is None:
        return fidelity.judge(outputs, samples, folder, error)
    twin = Artifact.of(rival, opened.case.technique)
    if twin.outputs_file.exists():
        return fidelity.judge(outputs, samples, folder, error, twin)
    alone = fidelity.judge(outputs, samples, folder, error)  # a graph keeps no outputs to pair with
    return replace(alone, gained=None, lost=None, agreement=None)
