"""In which dtype the operators ran that decide how fast a model is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leanmark.errors import TookNoEffect

if TYPE_CHECKING:
    from leanmark.models.executed import Executed

_HEAVY = (
    "mm[",
    "addmm[",
    "bmm[",
    "baddbmm[",
    "linear[",
    "convolution[",
    "mkldnn_linear[",
    "mkldnn_convolution[",
    "mkldnn_rnn_layer[",
    "_cudnn_rnn",
    "_native_multi_head_attention[",
    "_transformer_encoder_layer_fwd[",
    "_scaled_dot_product",  # the attention kernels all begin so
    "leanmark_kernels::",
)
"""How the entries of Executed.operators begin that must not be in float32."""


def check_heavy(executed: Executed, dtype: str) -> None:
    """All products, convolutions and attention ran in ``dtype``, and there were some.

    Raises:
        TookNoEffect: not so.
    """
    slow = ("[float32]",) if dtype == "tf32" else ("[float32]", "[tf32]")
    heavy = [name for name in executed.operators if name.startswith(_HEAVY)]
    in_float = sorted(name for name in heavy if name.endswith(slow))
    if in_float:
        raise TookNoEffect(f"not everything ran in {dtype}: {', '.join(in_float)}")
    if not any(name.endswith(f"[{dtype}]") for name in heavy):
        raise TookNoEffect(f"no matrix product, convolution or attention ran in {dtype}")
