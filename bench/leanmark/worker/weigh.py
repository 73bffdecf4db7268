"""A spawned worker that weighs its process before leanmark is imported, and again after.

First comes what a process of the user's own would hold too, the backend; what is added then is leanmark's own
and is left out of every figure. So this file is run as a script: ``-m`` would import the package first.

``python weigh.py <socket fd> <parent pid> <module of the backend>...``
"""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path

_PROCESS = Path("/proc/self")


def main() -> None:
    interpreter = _account()
    for name in sys.argv[3:]:
        importlib.import_module(name)
    gc.collect()
    imported = _account()
    from leanmark.worker.serve import spawned

    spawned(interpreter, imported)


def _account() -> str:
    """What the kernel says of this process; empty where it says nothing."""
    files = (_PROCESS / name for name in ("status", "smaps_rollup"))
    return "".join(file.read_text() for file in files if file.exists())


if __name__ == "__main__":
    main()
