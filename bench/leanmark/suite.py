"""What the main job measures on a GPU, where small models only measure the host."""

from __future__ import annotations

from collections.abc import Mapping

from leanmark.record import BASELINE, Phase

LARGER = ("resnet50", "bert", "gpt2-prefill", "gpt2-decode")
"""Workloads that fill a GPU; their weights are random, so they say nothing about accuracy."""

GPU_WORKLOADS = (*LARGER, "cnn", "transformer")
"""The small ones are trained: on them the accuracy of what a technique leaves is known."""

GPU_TECHNIQUES = (
    BASELINE,
    "tf32",
    "bf16",
    "fp16",
    "fp8",
    "int8dq",
    "int8wo",
    "int4wo",
    "sparse24",
    "prune",
    "distill",
    "bf16+channels_last",
    "compile",
    "bf16+compile",
    "bf16+cuda_graphs",
    "fused_optimizer",
    "checkpointing",
)

COMPILING_S = 600.0
"""What the first step may take on a GPU: torch.compile writes and builds its kernels in it."""

GPU_BATCHES: Mapping[str, Mapping[Phase, tuple[int, ...]]] = {
    "resnet50": {"inference": (1, 64, 256), "training": (64,)},
    "bert": {"inference": (1, 32), "training": (32,)},
    "gpt2-prefill": {"inference": (1, 8), "training": (8,)},
    "gpt2-decode": {"inference": (1, 32), "training": ()},
}
"""No training of what only decodes."""
