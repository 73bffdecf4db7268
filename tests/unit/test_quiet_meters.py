"""A meter leaves nothing behind: no word on standard output, no connection, no file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, socket, sys, time
from pathlib import Path

attempts = []

def refused(*arguments, **options):
    attempts.append(repr(arguments))
    raise OSError("there is no network")

socket.socket.connect = socket.socket.connect_ex = refused
socket.create_connection = socket.getaddrinfo = refused

from leanmark import registry
from leanmark.meters.energy import choose

meters = {name: registry.load("meters", name) for name in registry.rows("meters")}
read = []
for name, kind in meters.items():
    if getattr(kind, "covers", None) is None:
        continue
    meter = kind()
    if meter.unavailable() is None:
        token = meter.start()
        time.sleep(meter.min_window_s)
        meter.stop(token)()
        read.append(name)
    meter.close()
choice = choose("processor")
print(json.dumps({"attempts": attempts, "read": read}), file=sys.stderr)
"""


def test_no_stray_output_no_network_and_no_files(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    for folder in (home, temporary):
        folder.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=home,
        env={"HOME": str(home), "TMPDIR": str(temporary), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert ran.stdout == ""
    told = json.loads(ran.stderr.strip().splitlines()[-1])
    assert told["attempts"] == []
    assert "codecarbon" in told["read"]
    assert [path.name for folder in (home, temporary) for path in folder.rglob("*")] == []
