"""A preloaded parent: imports the heavy libraries once, then forks workers that start in milliseconds.

Each has its own address layout, hash seed and environment padding, so several of them are several
samples of what a fresh interpreter would be. No thread may run before a fork, so nothing is computed
here.

Protocol on the control socket, one JSON object a line: once it is ready it says which messages its workers
understand, ``{"protocol": text}``. ``{"fork": log}`` with the worker's socket as an attached file descriptor
is answered by ``{"pid": n}``; ``{"wait": pid}`` by ``{"status": n}`` or ``{"status": null}`` while it still
runs.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import sys
import time
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path

from leanmark import registry
from leanmark.protocol.process import die_with_parent, redirect_output
from leanmark.protocol.version import protocol
from leanmark.worker.serve import serve

_PRELOADED = (
    "numpy",
    "torch",
    "torch._dynamo",  # the first optimizer of a process imports it
    "torch.utils._python_dispatch",
    "onnxruntime",
    "leanmark.backends.eager",
    "leanmark.backends.onnxruntime",
)


def main() -> None:
    """``python -m leanmark.worker.fork_server <control fd> <parent pid>``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    for name in _PRELOADED:
        if find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    for kind in registry.KINDS:
        registry.rows(kind)  # reads the metadata of every installed package: once, not in each worker
    gc.freeze()  # the workers' collections need not touch, and so copy, these pages
    control.sendall(json.dumps({"protocol": protocol()}).encode() + b"\n")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 65536, 1)
        if not message:
            return
        request = json.loads(message)
        reply = (
            {"pid": _fork(Path(request["fork"]), descriptors[0], control)}
            if "fork" in request
            else {"status": _wait(request["wait"])}
        )
        control.sendall(json.dumps(reply).encode() + b"\n")


def _fork(log: Path, descriptor: int, control: socket.socket) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    control.close()
    die_with_parent(server)
    redirect_output(log)
    try:
        serve(Connection(descriptor))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)  # no exit hooks of the parent's libraries


def _wait(pid: int, patience_s: float = 1.0) -> int | None:
    """A killed process is reaped a moment after its socket closes."""
    deadline = time.monotonic() + patience_s
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        if time.monotonic() > deadline:
            return None
        time.sleep(0.01)


if __name__ == "__main__":
    main()
