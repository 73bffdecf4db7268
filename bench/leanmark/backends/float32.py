"""How float32 is multiplied on tensor cores: set, and observed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def multiply(how: str) -> None:
    """Set how this process, which measures this one case, multiplies float32 on tensor cores.

    torch's own default is mixed: convolutions in TF32 and matrix products not, which would call a case fp32
    that is not.
    """
    import torch

    # of the interface before that of backends, which torch.compile's tuning asks: the two must agree
    torch.set_float32_matmul_precision("high" if how == "tf32" else "highest")
    backends: Any = torch.backends  # its annotations know no precisions
    for backend in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
        backend.fp32_precision = how


def observed(device: str = "cuda") -> str:
    """``tf32`` where a product or a convolution loses what float32 can hold: TF32 keeps 10 bits of a factor.

    Sizes are those for which libraries use tensor cores if they may. Fast algorithms of convolutions round
    a little in float32 too, hence the margin between 2^-12, which TF32 loses, and nothing.
    """
    import torch
    from torch.nn import functional as F

    factor, size, channels = 1.0 + 2.0**-12, 1024, 64
    left = torch.full((size, size), factor, device=device)
    images = torch.full((4, channels, 32, 32), factor, device=device)
    filters = torch.zeros(channels, channels, 3, 3, device=device)
    filters[:, :, 1, 1] = torch.eye(channels, device=device)
    results = left @ torch.eye(size, device=device), F.conv2d(images, filters, padding=1)
    lost = max(float((one - factor).abs().max()) for one in results)
    return "float32" if lost < 2.0**-15 else "tf32"


def named(ran: Mapping[str, int], how: str) -> dict[str, int]:
    """``ran`` with ``how`` in place of float32."""
    return {name.replace("[float32]", f"[{how}]"): count for name, count in ran.items()}
