"""8-bit post-training quantization by ONNX Runtime."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from leanmark.errors import TookNoEffect, Unsupported
from leanmark.record import Finding, Phase
from leanmark.techniques.base import Context, Technique

if TYPE_CHECKING:
    from leanmark.models.executed import Executed
    from leanmark.techniques.ort_quantizer import Kind, Samples

INTEGER_OPERATORS = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "QAttention",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
    }
)
"""What ONNX Runtime's optimised graphs call heavy operators that compute on integers."""

SATURATED = 0.05
"""A relative difference between integer kernels and their float simulation that rounding cannot explain."""

_STATIC = frozenset({"QLinearConv", "QLinearMatMul", "QGemm"})
_FLOAT = ("Conv", "FusedConv", "Gemm", "FusedGemm")
_CALIBRATION_SAMPLES = 320
_METADATA = "leanmark.int8"


@dataclass(frozen=True, slots=True)
class Int8(Technique):
    """Weights in signed and activations in unsigned 8 bits, scales per channel.

    ``static`` workloads get activation ranges from 320 training samples (QDQ); ``dynamic`` ones measure
    them while running. Weights use 7 bits where 8 would saturate: x86 without VNNI.
    """

    level: ClassVar[Literal["module", "graph"]] = "graph"
    backends: ClassVar[tuple[str, ...]] = ("onnxruntime",)
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    phases: ClassVar[tuple[Phase, ...]] = ("inference",)
    packages: ClassVar[tuple[str, ...]] = ("torch", "onnx", "onnxruntime")
    lowers_precision: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.25  # sound ones show 0.01 to 0.05, saturating ones 0.15, wrong ones 0.8
    refusal: ClassVar[str] = (
        "int8 is post-training quantization of an ONNX graph: it has no gradients, ONNX Runtime runs its "
        "operators on processors only, and PyTorch's own int8 on CPUs is being removed (torch.ao) or slower "
        "than float (torchao)"
    )

    def apply_graph(self, source: Path, target: Path, context: Context) -> None:
        from leanmark.techniques import ort_quantizer

        kind = context.workload.quantization
        samples = _calibration(context)
        saturation = ort_quantizer.saturation()
        with tempfile.TemporaryDirectory() as folder:
            prepared = Path(folder) / "prepared.onnx"
            ort_quantizer.prepare(source, prepared)
            _refuse_if_mostly_float(prepared, kind)
            ort_quantizer.quantize(prepared, target, kind, saturation.saturates, samples)
        notes = {"reduce_range": saturation.saturates, "reduce_range_reason": saturation.reason}
        _annotate(target, notes | _deviations(source, target, samples))

    def verify_graph(self, source: Path, target: Path) -> Mapping[str, Any]:
        import onnx

        from leanmark.techniques.int8_weights import by_operator, share, weights
        from leanmark.techniques.ort_quantizer import QUANTIZABLE

        model = onnx.load(target)
        kind: Kind = "dynamic"
        if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
            kind = "static"
        found = weights(model.graph)
        integer = [weight for weight in found if weight.integer]
        if not integer:
            raise TookNoEffect(f"no weight in {target.name} is an 8-bit integer")
        left = [weight for weight in found if not weight.integer]
        missed = [weight for weight in left if weight.operator in QUANTIZABLE[kind]]
        if missed:
            names = ", ".join(f"{weight.operator} {weight.node}" for weight in missed)
            raise TookNoEffect(f"{kind} quantization left weights in float: {names}")
        facts = {
            "kind": kind,
            "quantized": by_operator(integer),
            "left_float": by_operator(left),
            "int8_weight_share": share(integer, found),
        }
        return facts | _annotations(model)

    def doubts(self, verified: Mapping[str, Any]) -> tuple[Finding, ...]:
        gap = verified.get("saturation_gap", 0.0)
        if gap <= SATURATED:
            return ()
        return (
            Finding(
                code="saturation",
                message=f"the 8-bit sums overflow on this processor: outputs differ by {gap:.1%} from those "
                "of a float simulation of the same file",
            ),
        )

    def verify_executed(self, executed: Executed) -> None:
        """ONNX Runtime may leave a quantized file as dequantize + float: the operators that ran decide."""
        ran = {name.partition("[")[0] for name in executed.operators}
        if not ran & INTEGER_OPERATORS:
            raise TookNoEffect(f"no integer operator ran, only: {', '.join(sorted(ran))}")
        left = sorted(ran.intersection(_FLOAT))
        if ran & _STATIC and left:
            raise TookNoEffect(f"part of the quantized model ran in float: {', '.join(left)}")


def _calibration(context: Context) -> Samples:
    """Training samples spread evenly over the training set, which may be sorted by class."""
    inputs = context.workload.dataset().train.inputs
    chosen = np.linspace(0, len(inputs) - 1, min(_CALIBRATION_SAMPLES, len(inputs))).astype(int)
    samples: Samples = inputs[chosen].numpy()
    return samples


def _refuse_if_mostly_float(prepared: Path, kind: Kind) -> None:
    import onnx

    from leanmark.techniques.int8_weights import by_operator, share, weights
    from leanmark.techniques.ort_quantizer import QUANTIZABLE

    found = weights(onnx.load(prepared).graph)
    able = [weight for weight in found if weight.operator in QUANTIZABLE[kind]]
    if share(able, found) < 0.5:
        rest = by_operator(weight for weight in found if weight not in able)
        raise Unsupported(
            f"ONNX Runtime's {kind} int8 cannot quantize most of this model's weights "
            f"(it leaves {', '.join(rest) or 'everything'} in float)"
        )


def _deviations(source: Path, target: Path, samples: Samples) -> dict[str, float]:
    """Relative L2 errors of the outputs on ``samples``, over the norm of the float model's outputs.

    ``saturation_gap`` compares the integer kernels with a float simulation of the same file: above about
    0.05 the integer sums overflow on this processor.
    """
    from leanmark.techniques.ort_quantizer import run

    reference = run(source, samples, optimised=True)
    integer = run(target, samples, optimised=True)
    simulated = run(target, samples, optimised=False)
    norm = float(np.linalg.norm(reference)) or 1.0
    return {
        "saturation_gap": float(np.linalg.norm(integer - simulated)) / norm,
        "output_error": float(np.linalg.norm(integer - reference)) / norm,
    }


def _annotate(target: Path, notes: Mapping[str, Any]) -> None:
    """Keep ``notes`` in the file itself: verify_graph sees no samples to measure them on."""
    import onnx

    model = onnx.load(target)
    onnx.helper.set_model_props(model, {_METADATA: json.dumps(notes)})
    onnx.save(model, target)


def _annotations(model: Any) -> dict[str, Any]:
    stored = {entry.key: entry.value for entry in model.metadata_props}
    notes: dict[str, Any] = json.loads(stored.get(_METADATA, "{}"))
    return notes
