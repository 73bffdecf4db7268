"""The parent's side of measuring processes: start them, ask them, notice when they die."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import leanmark
from leanmark.errors import NotComparable, WorkerDied, WorkerTimeout
from leanmark.measuring.source import HERE, Source
from leanmark.protocol import failure, messages
from leanmark.protocol.layout import Layout
from leanmark.protocol.process import describe_exit
from leanmark.protocol.version import protocol
from leanmark.rival import Rival

_START_TIMEOUT_S = 120.0
_WEIGH = Path(leanmark.__file__).parent / "worker" / "weigh.py"

OnNotice = Callable[[messages.Notice], None]


def _ignored(notice: messages.Notice) -> None:
    """For those who only want the reply."""


class Worker:
    """A process that measures. It is asked one thing at a time and sleeps in between."""

    def __init__(self, connection: Connection, log: Path, process: _Process) -> None:
        self._connection = connection
        self._log = log
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: messages.Request, timeout_s: float, notice: OnNotice = _ignored) -> Any:
        """The reply to ``request``; ``notice`` is called with what the worker says before it.

        Raises:
            Unsupported, UsageError, TookNoEffect, Implausible, OutOfMemory, WorkerRaised: as the worker says.
            WorkerDied: the process ended; the message says how, with the end of what it printed.
            WorkerTimeout: no answer in time; the process was killed.
        """
        self.tell(request)
        return self.answer(timeout_s, notice)

    def tell(self, request: messages.Request) -> None:
        """Send ``request``; what it leads to is known to :meth:`answer`."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # answer() says how it ended
            self._connection.send(request)

    def answer(self, timeout_s: float, notice: OnNotice = _ignored) -> Any:
        """The reply to what was told, or the error that :meth:`ask` would raise."""
        reply = self._receive(timeout_s)
        while isinstance(reply, messages.Notice):
            notice(reply)
            reply = self._receive(timeout_s)
        if isinstance(reply, messages.Failure):
            raise failure.as_error(reply)
        return reply

    def _receive(self, timeout_s: float) -> Any:
        try:
            if not self._connection.poll(timeout_s):
                self.kill()
                raise WorkerTimeout(f"no answer within {timeout_s:g} s; the process was killed")
            return self._connection.recv()
        except (EOFError, ConnectionResetError) as error:
            raise WorkerDied(f"the process {self._process.how_it_ended()}{self._last_words()}") from error

    def kill(self) -> None:
        self._connection.close()
        self._process.kill()

    def close(self) -> None:
        """Let the process end by itself: it does so when its socket closes."""
        self._connection.close()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        tail = [line for line in lines if line.strip()][-3:]
        return f"; it last printed: {' | '.join(tail)}" if tail else ""


@dataclass(frozen=True, slots=True)
class _Process:
    """A worker's process: our own child, or one that a fork server waits for."""

    pid: int
    child: subprocess.Popen[bytes] | None = None
    server: ForkServer | None = None

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            return
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # already gone
        self.how_it_ended()

    def how_it_ended(self) -> str:
        if self.child is not None:
            try:
                code = self.child.wait(timeout=1.0)
            except subprocess.TimeoutExpired:
                return "closed its connection but still runs"
            return describe_exit(-code if code < 0 else code << 8)
        assert self.server is not None
        status = self.server.wait(self.pid)
        return "closed its connection but still runs" if status is None else describe_exit(status)


class ForkServer:
    """A preloaded parent and the socket it is told over."""

    def __init__(self, layout: Layout, folder: Path, source: Source = HERE) -> None:
        self.layout = layout
        self._folder = folder
        self._source = source
        self._count = 0
        ours, theirs = socket.socketpair()
        server = ("-m", "leanmark.worker.fork_server")
        self._child = _start(server, theirs, layout, folder / "fork-server.log", source)
        self._control = ours
        self._ready = False
        self._refusal: str | None = None

    @property
    def pid(self) -> int:
        return self._child.pid

    def greet(self) -> None:
        """Wait until it is ready to fork.

        Raises:
            NotComparable: it is another commit's, and speaks of other things than this one.
            WorkerDied, WorkerTimeout: it did not start.
        """
        if self._refusal is not None:
            raise NotComparable(self._refusal)
        if self._ready:
            return
        try:
            theirs = self._receive().get("protocol")
        except WorkerDied as error:
            if self._source.rival is None:
                raise
            self._refusal = _cannot_talk(self._source.rival, f"its worker did not start: {error}")
            raise NotComparable(self._refusal) from error
        if theirs != protocol():
            why = f"the protocol of its workers is {theirs or 'older than any number'}, here {protocol()}"
            self._refusal = _cannot_talk(self._source.rival, why)
            raise NotComparable(self._refusal)
        self._ready = True

    def fork(self) -> Worker:
        """A new worker, forked from this server."""
        self.greet()
        self._count += 1
        log = self._folder / f"worker-{self._count}.log"
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [json.dumps({"fork": str(log)}).encode()], [theirs.fileno()])
            reply = self._receive()
        process = _Process(pid=reply["pid"], server=self)
        return Worker(Connection(ours.detach()), log, process)

    def wait(self, pid: int) -> int | None:
        """The wait status of a forked worker, ``None`` while it runs."""
        self._control.sendall(json.dumps({"wait": pid}).encode())
        status: int | None = self._receive()["status"]
        return status

    def close(self) -> None:
        self._control.close()
        self._child.kill()
        self._child.wait()

    def _receive(self) -> dict[str, Any]:
        self._control.settimeout(_START_TIMEOUT_S)
        line = b""
        while not line.endswith(b"\n"):
            try:
                part = self._control.recv(4096)
            except TimeoutError as error:
                raise WorkerTimeout("a preloaded parent process did not start or answer") from error
            if not part:
                log = (self._folder / "fork-server.log").read_text(errors="replace").strip()
                raise WorkerDied(f"a preloaded parent process ended: {log[-2000:] or 'it printed nothing'}")
            line += part
        reply: dict[str, Any] = json.loads(line)
        return reply


class Launcher:
    """Owns every process of a run; leaving it ends them all. ``gpu`` is the UUID of the one they may see."""

    def __init__(self, gpu: str = "") -> None:
        self._gpu = gpu
        self._folder = Path(tempfile.mkdtemp(prefix="leanmark-"))
        self._servers: dict[tuple[Layout, Source], ForkServer] = {}
        self._spawned: list[Worker] = []

    @property
    def gpu(self) -> str:
        """Empty where everything runs on processors."""
        return self._gpu

    @property
    def folder(self) -> Path:
        """Scratch space of this run: prepared models, logs. Removed at the end."""
        return self._folder

    def server(self, layout: Layout, source: Source = HERE) -> ForkServer:
        """The preloaded parent with this layout; the first call starts it and does not wait."""
        layout = replace(layout, gpu=self._gpu)
        if (layout, source) not in self._servers:
            folder = self._folder / f"server-{len(self._servers)}"
            folder.mkdir()
            self._servers[layout, source] = ForkServer(layout, folder, source)
        return self._servers[layout, source]

    def spawn(self, layout: Layout, modules: Sequence[str] = (), source: Source = HERE) -> Worker:
        """A worker in a fresh interpreter that imports ``modules``, and weighs itself, before leanmark."""
        layout = replace(layout, gpu=self._gpu)
        log = self._folder / f"spawned-{len(self._spawned)}.log"
        ours, theirs = socket.socketpair()
        child = _start((str(_WEIGH),), theirs, layout, log, source, modules)
        worker = Worker(Connection(ours.detach()), log, _Process(pid=child.pid, child=child))
        self._spawned.append(worker)
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._spawned:
            worker.kill()
        for server in self._servers.values():
            server.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _cannot_talk(rival: Rival | None, why: str) -> str:
    if rival is None:
        return f"leanmark was changed on disk while it ran ({why}): start it again"
    return (
        f"{rival} cannot be measured in one run with this commit: {why}. Run `leanmark run` at each commit "
        "instead, and compare the records: leanmark compare OLDER NEWER"
    )


def _start(
    script: Sequence[str],
    theirs: socket.socket,
    layout: Layout,
    log: Path,
    source: Source,
    arguments: Sequence[str] = (),
) -> subprocess.Popen[bytes]:
    """Run ``script`` in a fresh interpreter, in a session of its own: Ctrl-C is ours to handle."""
    with theirs, log.open("ab") as output:
        return subprocess.Popen(
            # -P: the folder leanmark is started in must not shadow installed packages
            [source.interpreter, "-P", *script, str(theirs.fileno()), str(os.getpid()), *arguments],
            cwd=source.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=source.environment(layout.environment()),
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
