"""Which operators of torch a step ran, and in which dtypes, from torch's own profiler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

COMPILED, RECOMPUTED, FUSED_UPDATE = "compiled_region", "recomputed_region", "fused_update"
"""What is counted for a part of a step that ran as torch.compile made it, for one that ran again in the
backward pass, and for an update of many weights by one kernel."""

_MARKS = {
    "Torch-Compiled Region": COMPILED,
    RECOMPUTED: RECOMPUTED,
    "aten::_fused_adam": FUSED_UPDATE,
    "aten::_fused_sgd": FUSED_UPDATE,
    "aten::_fused_adagrad": FUSED_UPDATE,
}
"""How the names of events begin that tell what no operator tells."""

_HEAVY = frozenset(
    {
        "mm", "addmm", "_addmm_activation", "bmm", "baddbmm", "mv", "addmv", "dot", "_int_mm", "_scaled_mm",
        "convolution", "convolution_backward", "mkldnn_rnn_layer", "mkldnn_rnn_layer_backward",
        "_cudnn_rnn", "_cudnn_rnn_backward", "_weight_int4pack_mm", "_weight_int8pack_mm",
        "_cslt_sparse_mm", "_sparse_semi_structured_linear", "_sparse_semi_structured_mm",
        "_sparse_semi_structured_addmm",
    }
    | {
        f"_scaled_dot_product_{kernel}_attention{rest}"
        for kernel in ("flash", "efficient", "cudnn")
        for rest in ("", "_backward", "_for_cpu", "_for_cpu_backward")
    }
)  # fmt: skip
"""The operators of torch in which a model spends its arithmetic."""

_LIBRARY = frozenset({"aten", "prim", "prims", "autograd", "torch", "profiler", "inductor"})
"""Namespaces of torch itself; an operator of any other was written to compute, so it is reported."""

_DTYPES = {
    "c10::BFloat16": "bfloat16",
    "c10::Half": "float16",
    "c10::Float8_e4m3fn": "float8_e4m3fn",
    "float": "float32",
    "double": "float64",
    "signed char": "int8",
    "unsigned char": "uint8",
}
"""The profiler's names of dtypes in torch's words."""


def operators(step: Callable[[], object]) -> dict[str, int]:
    """Operators of one real step. A dispatch mode would switch autocast off below itself."""
    from torch.autograd import profiler

    with profiler.profile(use_kineto=True, record_shapes=True) as profile:
        step()
    # function events have no dtypes before torch 2.12; the ones below them have, under the same number
    raw: Any = profile.kineto_results
    dtypes = {one.correlation_id(): one.dtypes() for one in raw.events() if one.dtypes()}
    return dict(Counter(_names(profile.function_events, dtypes)))


def _names(events: Iterable[FunctionEvent], dtypes: Mapping[int, Sequence[str]]) -> Iterator[str]:
    """``addmm[float32]`` for each heavy operator that calls no other: autocast and fused ones do."""
    for event in events:
        mark = next((mark for start, mark in _MARKS.items() if event.name.startswith(start)), None)
        if mark is not None:
            yield mark
        elif _is_heavy(event) and not any(_is_heavy(inner) for inner in _below(event)):
            used = sorted(set(_matrix_dtypes(event, dtypes.get(event.id, ()))))
            yield f"{event.name.removeprefix('aten::')}[{'+'.join(used)}]"


def _is_heavy(event: FunctionEvent) -> bool:
    namespace, separator, name = event.name.partition("::")
    if not separator or not name.isidentifier():
        return False
    return name in _HEAVY if namespace == "aten" else namespace not in _LIBRARY


def _below(event: FunctionEvent) -> Iterator[FunctionEvent]:
    for inner in event.cpu_children:
        yield inner
        yield from _below(inner)


def _matrix_dtypes(event: FunctionEvent, dtypes: Sequence[str]) -> Iterator[str]:
    """Dtypes of the arguments of two dimensions or more: biases and scales do not decide."""
    shapes: Any = event.input_shapes  # its annotation says one tuple of ints
    for shape, dtype in zip(shapes, dtypes, strict=True):
        if len(shape) >= 2 and dtype != "TensorList":
            yield _DTYPES.get(dtype, dtype)
