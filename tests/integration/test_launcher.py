"""Real processes: forked and spawned workers, and every way they can end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from leanmark.errors import WorkerDied, WorkerRaised, WorkerTimeout
from leanmark.measuring.launcher import Launcher, Worker
from leanmark.protocol import messages
from leanmark.protocol.layout import Layout

LAYOUT = Layout(hash_seed=1, padding_bytes=100, threads=1, wait="passive")


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as started:
        yield started


@pytest.fixture(params=["forked", "spawned"])
def worker(request: pytest.FixtureRequest, launcher: Launcher) -> Iterator[Worker]:
    made = launcher.server(LAYOUT).fork() if request.param == "forked" else launcher.spawn(LAYOUT)
    yield made
    made.kill()


def test_what_a_worker_raises_comes_back_with_its_traceback(worker: Worker) -> None:
    with pytest.raises(WorkerRaised, match="RuntimeError: no case is open") as caught:
        worker.ask(messages.RunBlock(1), 60)
    assert "Traceback" in caught.value.traceback
    # and the worker lives on
    with pytest.raises(WorkerRaised, match="no case is open"):
        worker.ask(messages.RunBlock(1), 60)


def test_a_killed_worker_is_named_as_such(worker: Worker) -> None:
    with pytest.raises(WorkerRaised):  # it has started
        worker.ask(messages.RunBlock(1), 60)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDied, match="killed by SIGKILL .*out-of-memory"):
        worker.ask(messages.RunBlock(1), 60)


def test_a_worker_that_hangs_is_killed(worker: Worker) -> None:
    with pytest.raises(WorkerRaised):
        worker.ask(messages.RunBlock(1), 60)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerTimeout, match=r"no answer within 0\.2 s"):
        worker.ask(messages.RunBlock(1), 0.2)
    assert not _alive(worker.pid)


def test_two_forks_of_one_server_are_two_processes(launcher: Launcher) -> None:
    first, second = launcher.server(LAYOUT).fork(), launcher.server(LAYOUT).fork()
    assert first.pid != second.pid
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(WorkerRaised, match="no case is open"):
        second.ask(messages.RunBlock(1), 60)
    first.close()
    second.close()


def test_no_orphans_when_the_launcher_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import time\n"
        "from leanmark.measuring.launcher import Launcher\n"
        "from leanmark.protocol.layout import Layout\n"
        "launcher = Launcher()\n"
        "layout = Layout(hash_seed=1, padding_bytes=0, threads=1, wait='passive')\n"
        "server = launcher.server(layout)\n"
        "workers = server.fork(), launcher.spawn(layout)\n"
        "print(server.pid, *(worker.pid for worker in workers), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(text) for text in parent.stdout.readline().split()]
        alive = [_alive(pid) for pid in pids]
        parent.kill()
    assert alive == [True, True, True]
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_alive(pid) for pid in pids)


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
