"""Writes the ONNX file of a module, for the backends that run one."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanmark.backends.base import Array
from leanmark.errors import Unsupported

if TYPE_CHECKING:
    from torch import nn

_LARGEST_BATCH = 4096


def write(module: nn.Module, target: Path, example: Array) -> None:
    """The graph of ``module`` with a batch dimension of any size, without what is left over of its export.

    Raises:
        Unsupported: the module cannot be exported, and why.
    """
    import onnx

    _export(module, target, example)
    model = onnx.load(target)
    # the exporter's leftover shapes contradict those that quantization infers (onnxruntime #25890)
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:  # stack traces of the export, up to half of a small file
        del node.metadata_props[:]
    onnx.save(model, target)


def _export(module: nn.Module, target: Path, example: Array) -> None:
    import torch

    if len(example) < 2:  # a batch of one would be taken for a constant
        example = np.concatenate([example, example])
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    try:
        with _silence():
            torch.onnx.export(
                module,
                (torch.from_numpy(example),),
                target,
                dynamo=True,
                external_data=False,
                verbose=False,
                dynamic_shapes=({0: batch},),
            )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise Unsupported(f"{type(module).__name__} cannot be exported to ONNX: {cause}") from error


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log lines from the user; errors are raised anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
