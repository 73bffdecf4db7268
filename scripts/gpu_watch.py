"""Runs pieces of work in a process that may crash or hang, and says which piece it was.

That process prints ``begin NAME`` before a piece; everything else that it prints is passed on.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_BEGIN = "begin "
_LAST_LINES = 30


@dataclass(frozen=True, slots=True)
class Ended:
    """``why`` is empty where the process ended well; ``piece`` is what was under way, ``said`` its words.

    ``late`` is whether the time of all pieces was over, which is no fault of this one.
    """

    piece: str
    why: str
    said: str
    late: bool = False


def run(
    command: Sequence[str],
    *,
    piece_s: float,
    total_s: float,
    grace_s: float = 0.0,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run ``command``; kill it where one piece lasts longer than ``piece_s``, all longer than ``total_s``.

    It is interrupted first, as by Ctrl-C, and has ``grace_s`` to end.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )
    end_s = until_s = time.monotonic() + total_s
    piece, said = "", deque[str](maxlen=_LAST_LINES)
    lines = _lines(process)
    try:
        while (line := lines.get(timeout=max(0.0, until_s - time.monotonic()))) is not None:
            if line.startswith(_BEGIN):
                piece = line.removeprefix(_BEGIN).strip()
                until_s = min(end_s, time.monotonic() + piece_s)
            else:
                print(line, end="", flush=True)
                said.append(line)
        code = process.wait()
    except queue.Empty:
        late = until_s == end_s
        why = "the time was over" if late else f"it took longer than {piece_s:g} s"
        if grace_s:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(grace_s)
        return Ended(piece, f"{why}, and it was ended", "".join(said), late)
    finally:
        process.kill()
        process.wait()
    return Ended(piece, "" if code == 0 else f"its process ended with code {code}", "".join(said))


def _lines(process: subprocess.Popen[str]) -> queue.Queue[str | None]:
    """What ``process`` prints, and ``None`` at its end."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None, "it is a pipe"
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return lines


def begin(piece: str) -> None:
    """Say, in the process that is watched, what follows."""
    print(f"{_BEGIN}{piece}", flush=True)


def again(*arguments: str) -> list[str]:
    """The command that runs this script in another process."""
    return [sys.executable, sys.argv[0], *arguments]
