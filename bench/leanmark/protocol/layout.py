"""What differs between replicas of a process: it moves addresses and hashes about.

Mytkowicz et al., "Producing wrong data without doing anything obviously wrong", ASPLOS 2009.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

_OURS = ("OMP_", "MKL_", "KMP_", "OPENBLAS_", "CODECARBON_", "PYTHONHASHSEED", "CUDA_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """``padding_bytes`` lengthens the environment; ``wait`` is the OpenMP wait policy.

    ``gpu`` is the UUID of the only GPU the process may see; without one it sees none.
    """

    hash_seed: int
    padding_bytes: int
    threads: int
    wait: str
    gpu: str = ""

    def environment(self) -> dict[str, str]:
        """The environment of a process with this layout; what would change its threads is ours."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        return kept | {
            "PYTHONHASHSEED": str(self.hash_seed),
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "OMP_WAIT_POLICY": self.wait.upper(),
            "LEANMARK_PADDING": "x" * self.padding_bytes,
            "CUDA_VISIBLE_DEVICES": self.gpu,
            # whether there is a GPU is asked without starting CUDA: a started one does not survive a fork
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        }
