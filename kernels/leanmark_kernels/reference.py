"""What each operator means, in plain torch: the definition its native kernels are tested against."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``relu(input @ weight.T + bias)``.

    ``input`` is [*, K], ``weight`` [N, K], ``bias`` [N] or ``None``, all of one floating dtype;
    returns [*, N].
    """
    return torch.relu(F.linear(input, weight, bias))
