"""Techniques that act on the device: what they do on this processor, and how they refuse what it cannot."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanmark import chain, plan
from leanmark.devices.base import Accelerator, Step
from leanmark.errors import BadPlan, TookNoEffect, Unsupported
from leanmark.models.executed import Executed
from leanmark.protocol.messages import WorkloadSpec
from leanmark.techniques.base import Technique
from leanmark.techniques.channels_last import ChannelsLast
from leanmark.techniques.checkpointing import Checkpointing, blocks
from leanmark.techniques.compiled import Compile
from leanmark.techniques.cuda_graphs import CudaGraphs
from leanmark.techniques.fp16 import Fp16
from leanmark.techniques.fused_optimizer import FusedOptimizer
from leanmark.techniques.sparse24 import Sparse24, two_of_four
from leanmark.techniques.torch_step import TorchStep
from leanmark.techniques.torchao_weights import Fp8, Int4Weights, Int8Dynamic, Int8Weights
from leanmark.workloads.base import Workload
from leanmark.workloads.encoder import BertBase
from leanmark.workloads.mlp import Mlp
from leanmark.workloads.resnet import ResNet18

from .device_step import Bench

BERT = BertBase(width=64, heads=2, layers=3, vocabulary=50, length=16)
RESNET = ResNet18(image=32, width=8)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[[Workload], Bench]:
    return lambda workload: Bench(workload, tmp_path)


def executed(*names: str) -> Executed:
    return Executed(operators=dict.fromkeys(names, 1), threads=1, device="cpu")


def link(name: str) -> Technique:
    return chain.build(chain.Link(name))


@pytest.mark.parametrize("name", ["tf32", "fp16", "cuda_graphs", "fp8", "int4wo", "sparse24"])
def test_a_processor_is_refused_with_the_reason(name: str) -> None:
    selection = plan.Selection(
        workloads=(WorkloadSpec(name="bert"),), techniques=(name,), backends=("eager",)
    )
    with pytest.raises(BadPlan, match=f"{name} has no inference on cpu: {link(name).refusal[:20]}"):
        plan.make(selection, plan.QUICK)


@pytest.mark.parametrize("name", ["tf32", "cuda_graphs", "sparse24"])
def test_a_step_on_a_processor_is_refused_too(name: str) -> None:
    step = TorchStep(module=nn.Linear(4, 4), inputs=torch.ones(1, 4))
    with pytest.raises(Unsupported, match="NVIDIA"):
        link(name).deploy(step)


def test_fp16_runs_in_float16_and_scales_the_loss(bench: Callable[[Workload], Bench]) -> None:
    inference = bench(BERT).open("inference", 4, Fp16())
    Fp16().verify_executed(inference.executed())
    assert 1e-5 < bench(BERT).error(inference) < Fp16.tolerance
    training = bench(BERT).open("training", 4, Fp16())
    assert training._scaler.get_scale() == 65536.0
    before = training._module.module.classify.weight.detach().clone()
    training.step()
    assert not torch.equal(before, training._module.module.classify.weight)
    Fp16().verify_executed(training.executed())
    plain = bench(BERT).open("training", 4)
    with pytest.raises(TookNoEffect, match="not everything ran in float16"):
        Fp16().verify_executed(plain.executed())


@pytest.mark.parametrize("where", ["product", "convolution"])
def test_lost_bits_are_seen_in_products_and_in_convolutions(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Factors are cut to 10 bits as TF32 does."""
    from leanmark.backends import float32

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return ((tensor.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)

    assert float32.observed("cpu") == "float32"
    multiply, convolve = torch.Tensor.__matmul__, torch.nn.functional.conv2d
    if where == "product":
        monkeypatch.setattr(torch.Tensor, "__matmul__", lambda a, b: multiply(cut(a), cut(b)))
    else:
        monkeypatch.setattr(
            torch.nn.functional, "conv2d", lambda a, b, padding: convolve(cut(a), cut(b), padding=padding)
        )
    assert float32.observed("cpu") == "tf32"


@pytest.mark.parametrize("ran", [("addmm[tf32]",), ("convolution[tf32]", "mm[bfloat16]")])
def test_tf32_is_believed_where_a_product_lost_bits(ran: tuple[str, ...]) -> None:
    link("tf32").verify_executed(executed(*ran))
    with pytest.raises(TookNoEffect, match=r"not everything ran in tf32: addmm\[float32\]"):
        link("tf32").verify_executed(executed("addmm[float32]", *ran))


def test_torchs_two_interfaces_agree_on_how_float32_is_multiplied() -> None:
    """The older one raises where they do not; in a process of its own, since both are the process's."""
    program = """
import torch
from leanmark.backends import float32
for how, name in (("tf32", "high"), ("ieee", "highest")):
    float32.multiply(how)
    assert torch.get_float32_matmul_precision() == name
    assert torch.backends.cuda.matmul.allow_tf32 == (how == "tf32")
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == how
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_channels_last_keeps_the_values(bench: Callable[[Workload], Bench]) -> None:
    opened = bench(RESNET).open("inference", 4, ChannelsLast())
    assert opened._inputs.is_contiguous(memory_format=torch.channels_last)
    assert not opened._inputs.is_contiguous()
    assert bench(RESNET).error(opened) < 1e-5
    opened.step()
    with pytest.raises(Unsupported, match="no convolution"):
        bench(BERT).apply(ChannelsLast())
    with pytest.raises(TookNoEffect, match="not channels last: stem.0"):
        ChannelsLast().verify(RESNET.model(), RESNET.model())


def test_a_fused_optimizer_changes_the_weights_as_the_plain_one(bench: Callable[[Workload], Bench]) -> None:
    plain, fused = (bench(Mlp()).open("training", 8, *links) for links in ((), (FusedOptimizer(),)))
    for _ in range(3):
        plain.step()
        fused.step()
    for one, other in zip(plain._module.parameters(), fused._module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    ran = fused.executed()
    assert ran.operators["fused_update"] == 1
    FusedOptimizer().verify_executed(ran)
    with pytest.raises(TookNoEffect, match="no fused update"):
        FusedOptimizer().verify_executed(plain.executed())
    assert fused._optimizer.param_groups[0]["lr"] == plain._optimizer.param_groups[0]["lr"]


def test_checkpointing_keeps_fewer_activations_and_the_gradients(bench: Callable[[Workload], Bench]) -> None:
    plain, less = (bench(BERT).open("training", 4, *links) for links in ((), (Checkpointing(),)))
    parts = [one.memory_parts() for one in (plain, less)]
    assert parts[1]["activations"] < 0.3 * parts[0]["activations"]
    assert parts[1]["weights"] == parts[0]["weights"]
    for one, other in zip(plain._module.parameters(), less._module.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    ran = less.executed()
    assert ran.operators["recomputed_region"] == 3
    Checkpointing().verify_executed(ran)
    with pytest.raises(TookNoEffect, match="nothing was computed again"):
        Checkpointing().verify_executed(plain.executed())


def test_checkpoints_are_at_the_largest_stack() -> None:
    bert: Any = BERT.model()
    assert blocks(bert) == list(bert.blocks)
    assert len(blocks(RESNET.model())) == 8
    with pytest.raises(Unsupported, match="no stack of several blocks"):
        Checkpointing().apply(nn.Linear(2, 2), None)  # type: ignore[arg-type]


def test_two_of_four_keeps_the_largest() -> None:
    weight = torch.tensor([[1.0, -4.0, 3.0, 2.0, 0.0, 0.0, -1.0, 5.0]])
    assert two_of_four(weight).tolist() == [[0, 1, 1, 0, 0, 0, 1, 1]]


def test_sparse24_keeps_its_zeros_while_it_is_tuned(bench: Callable[[Workload], Bench]) -> None:
    sparse = bench(Mlp()).apply(Sparse24())
    layer = sparse.get_submodule("3")
    assert isinstance(layer, nn.Linear)
    assert (layer.weight.reshape(-1, 4) != 0).sum(1).max() == 2
    assert Sparse24().verify(Mlp().model(), sparse) == {"layers": 2, "sparsity": 0.5}
    assert not layer.weight._backward_hooks
    with pytest.raises(TookNoEffect, match="more than two of four weights are left: 1, 3"):
        Sparse24().verify(Mlp().model(), Mlp().model())
    with pytest.raises(TookNoEffect, match="no sparse product ran"):
        Sparse24().verify_executed(executed("addmm[bfloat16]"))


TORCHAO = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")


@TORCHAO
@pytest.mark.parametrize("technique", [Int8Weights(), Int8Dynamic()], ids=["int8wo", "int8dq"])
def test_torchao_quantizes_when_the_model_is_loaded(
    technique: Int8Weights | Int8Dynamic, bench: Callable[[Workload], Bench]
) -> None:
    plain, opened = bench(BERT).open("inference", 4), bench(BERT).open("inference", 4, technique)
    ran = opened.executed()
    technique.verify_executed(ran)
    assert ran.device == "cpu"
    assert 1e-4 < bench(BERT).error(opened) < technique.tolerance
    # 4 bytes of float become one and a scale per row; embedding, norms and the last layer stay
    linear = sum(m.weight.numel() for m in BERT.model().modules() if isinstance(m, nn.Linear)) - 2 * 64
    saved = plain.memory_parts()["weights"] - opened.memory_parts()["weights"]
    assert 0.95 * 3 * linear < saved <= 3 * linear
    if technique.operator:
        with pytest.raises(TookNoEffect, match="_int_mm did not run"):
            technique.verify_executed(plain.executed())


@TORCHAO
@pytest.mark.parametrize("technique", [Fp8(), Int4Weights()], ids=["fp8", "int4wo"])
def test_torchao_says_what_needs_a_gpu(technique: Technique, bench: Callable[[Workload], Bench]) -> None:
    workload = BertBase(width=128, heads=2, layers=1, vocabulary=50, length=16)
    with pytest.raises(Unsupported, match="torchao cannot do this here: .*(CUDA|bfloat16)"):
        bench(workload).open("inference", 4, technique)


def test_torchao_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, bench: Callable[[Workload], Bench]
) -> None:
    monkeypatch.setattr("leanmark.techniques.torchao_weights.find_spec", lambda name: None)
    with pytest.raises(Unsupported, match=r"pip install 'leanmark\[torchao\]'"):
        bench(BERT).apply(Int8Weights())


def test_a_model_without_layers_that_fit_is_refused(bench: Callable[[Workload], Bench]) -> None:
    if importlib.util.find_spec("torchao"):
        with pytest.raises(Unsupported, match="no linear layer whose sides are multiples of 16"):
            bench(BertBase(width=24, heads=2, layers=1, vocabulary=50, length=8)).apply(Int8Weights())


@pytest.mark.parametrize(
    ("text", "message"),
    [("compile(mode=fast)", "mode must be one of default"), ("int4wo(group=3)", "group must be")],
)
def test_options_are_checked(text: str, message: str) -> None:
    with pytest.raises(Exception, match=message):
        chain.build(chain.parse(text)[0])


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)  # torch's
def test_compiled_code_runs_and_says_the_same(bench: Callable[[Workload], Bench]) -> None:
    """Of a perceptron, since compiling C++ for each kernel takes most of a minute."""
    opened = bench(Mlp()).open("inference", 100, Compile())
    opened.step()
    Compile().verify_executed(opened.executed())
    assert bench(Mlp()).error(opened) < 1e-4  # 540 test samples in batches of 100


def test_what_a_model_makes_when_first_called_is_there_when_it_is_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not in training, where a call changes a model."""

    class Lazy(nn.Linear):
        calls = 0

        def forward(self, input: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(input)

    found: list[int] = []

    def compiled(module: Lazy, **_: object) -> nn.Module:
        found.append(module.calls)
        return module

    monkeypatch.setattr(torch, "compile", compiled)
    step = TorchStep(module=Lazy(2, 2), inputs=torch.ones(1, 2))
    Compile().deploy(step)
    assert found == [1]
    model = Lazy(2, 2)
    Compile().deploy(replace(step, module=model, optimizer=torch.optim.SGD(model.parameters())))
    assert found == [1, 0]


def test_what_was_not_compiled_is_caught() -> None:
    with pytest.raises(TookNoEffect, match="nothing of the step ran as compiled code"):
        Compile().verify_executed(executed("addmm[float32]"))


class Tape(Accelerator):
    """Records by keeping the step; ``changed`` spoils what a replay leaves behind."""

    def __init__(self, spoil: Callable[[], None] = lambda: None) -> None:
        self.captures = 0
        self._spoil = spoil

    def capture(self, step: Step) -> Step:
        self.captures += 1
        step()
        return self._spoil


class Recording(CudaGraphs):
    devices = ("cpu",)


def test_a_recorded_step_is_captured_once_and_compared(bench: Callable[[Workload], Bench]) -> None:
    tape = Tape()
    opened = bench(BERT).open("inference", 4, Recording(), accelerator=tape)
    opened.step()
    opened.step()
    assert tape.captures == 1
    ran = opened.executed()
    assert ran.operators["graph_replay"] == 1
    CudaGraphs().verify_executed(ran)
    assert bench(BERT).error(opened) < 1e-6
    assert opened.memory_parts() == bench(BERT).open("inference", 4).memory_parts()
    with pytest.raises(TookNoEffect, match="not replayed"):
        CudaGraphs().verify_executed(bench(BERT).open("inference", 4).executed())


def test_a_recording_that_gives_something_else_is_caught(bench: Callable[[Workload], Bench]) -> None:
    @torch.inference_mode()
    def spoil() -> None:
        opened._outputs.mul_(2)

    opened = bench(BERT).open("inference", 4, Recording(), accelerator=Tape(spoil))
    with pytest.raises(TookNoEffect, match="outputs are off by 1 of those of its step"):
        opened.executed()


def test_a_recorded_training_step_keeps_its_counters_on_the_device(
    bench: Callable[[Workload], Bench],
) -> None:
    with pytest.raises(Unsupported, match="CUDA graphs record work on NVIDIA"):
        bench(BERT).open("training", 4, Recording()).step()
    opened = bench(BERT).open("training", 4, Recording(), accelerator=Tape())
    assert opened._recorded._optimizer.param_groups[0]["capturable"] is True
    with pytest.raises(Unsupported, match="a scaled loss"):
        bench(BERT).open("training", 4, Fp16(), Recording(), accelerator=Tape())
