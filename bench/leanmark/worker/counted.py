"""A script for callgrind: opens one case and does as many steps as its last argument says.

``python -m leanmark.worker.counted <pickled PeakMemory> <steps>``; see ``machine.callgrind``.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

from leanmark import registry
from leanmark.machine import callgrind
from leanmark.protocol import messages
from leanmark.worker.serve import load_case

WARM_UP = 3
"""Steps before the counted ones; the first ones allocate, choose kernels and fill caches."""


def main() -> None:
    registry.search_here()
    request: messages.PeakMemory = pickle.loads(Path(sys.argv[1]).read_bytes())
    executable, _ = load_case(request)
    for _ in range(WARM_UP):
        executable.step()
    with callgrind.collecting():
        for _ in range(int(sys.argv[2])):
            executable.step()


if __name__ == "__main__":
    main()
