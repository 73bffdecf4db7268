"""Conversion on a GPU, without one: whole models in Triton's interpreter, the clock on a pretended GPU."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from leanmark_kernels.convert import Recipe, choosing, convert, gpu_rows, gpu_timing, place
from leanmark_kernels.convert.block import Block
from leanmark_kernels.convert.rows import candidates
from leanmark_kernels.triton import modules

from .test_triton_numerics import interpreted

pytestmark = pytest.mark.filterwarnings("ignore:leanmark_kernels runs its slower reference")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_small_models_are_converted_with_every_kernel() -> None:
    assert interpreted("triton_convert.py")[-1] == "all right"


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """This processor as a GPU: the operators run their reference, and every form of ours is the fastest."""

    def timed(
        calls: dict[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 2e-6 if name.startswith("torch") else 1e-6 for name in calls}

    monkeypatch.setattr(place, "is_gpu", lambda device: True)
    monkeypatch.setattr("leanmark_kernels.triton.why_unavailable", lambda: None)
    monkeypatch.setattr(choosing, "interleaved", timed)


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 128), nn.GELU()).eval()


@pytest.mark.parametrize(
    ("weights", "kind", "chosen"),
    [
        ("fp32", modules.FusedLinear, "fused linear"),
        ("w8", modules.WeightOnlyLinear, "w8a16"),
        ("w4", modules.WeightOnlyLinear, "w4a16"),
        ("int8-exact", modules.Int8Linear, "w8a8"),
    ],
)
def test_each_recipe_takes_its_kernel_also_in_bfloat16(
    pretended: None, weights: str, kind: type[nn.Module], chosen: str
) -> None:
    model, input = linear().bfloat16(), torch.randn(3, 256).bfloat16()
    converted = convert(model, input, Recipe(weights=weights, cache=None))
    (choice,) = converted.choices
    assert (choice.chosen, choice.what) == (chosen, "linear 256->128 + bias + gelu of 3x256 in bfloat16")
    assert isinstance(converted.body.get_submodule("0"), kind)
    exact = copy.deepcopy(model).double()(input.double())
    assert (converted(input).double() - exact).abs().max() < 0.2 * exact.abs().max()


def test_torchs_encoder_takes_the_kernels_too(pretended: None) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True)
    model = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False).eval().bfloat16()
    input = torch.randn(2, 5, 64).bfloat16()
    converted = convert(model, input, Recipe(cache=None))
    assert {choice.layer.removeprefix("layers.0."): choice.what for choice in converted.choices} == {
        "self_attn.in_proj": "linear 64->192 + bias of 2x5x64 in bfloat16",
        "self_attn.out_proj": "linear 64->64 + bias + residual of 2x5x64 in bfloat16",
        "linear1": "linear 64->128 + bias + gelu of 2x5x64 in bfloat16",
        "linear2": "linear 128->64 + bias + residual of 2x5x128 in bfloat16",
    }
    assert {choice.chosen for choice in converted.choices} == {"fused linear"}
    exact = copy.deepcopy(model).double()(input.double())
    assert (converted(input).double() - exact).abs().max() < 0.02 * exact.abs().max()


def test_weights_are_stored_in_fewer_bytes(pretended: None) -> None:
    def stored(weights: str) -> int:
        converted = convert(linear(), torch.randn(3, 256), Recipe(weights=weights, cache=None))
        return sum(buffer.nbytes for name, buffer in converted.named_buffers() if not name.endswith("format"))

    bias = 128 * 4
    assert stored("fp32") == 128 * 256 * 4 + bias
    assert stored("w8") == stored("int8-exact") == 128 * 256 + 128 * 4 + bias
    assert stored("w4") == 128 * 256 // 2 + 2 * 128 * 4 + bias


def test_a_recipe_without_kernels_is_refused(pretended: None) -> None:
    with pytest.raises(
        ValueError, match="weights 'w16' have no operator on cuda; it must be one of fp32, sp"
    ):
        convert(linear(), torch.randn(3, 256), Recipe(weights="w16", cache=None))


def test_without_triton_the_reason_is_given(pretended: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanmark_kernels.triton.why_unavailable", lambda: "triton is not installed")
    with pytest.raises(ValueError, match="'example 0' is on cpu, and triton is not installed"):
        convert(linear(), torch.randn(3, 256), Recipe(cache=None))


def test_a_kernel_that_cannot_be_compiled_costs_only_itself() -> None:
    class Broken(nn.Module):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no configuration runs on this GPU:\nall of them spill")

    block = Block(nn.Linear(4, 4))
    rows = list(candidates(block, "w8", gpu_rows.ROWS))
    forms: dict[str, nn.Module] = {**{row.name: block for row in rows}, "fused linear": Broken()}
    seat = choosing._Seat("head", block, (torch.ones(1, 4),), model_bytes=0)
    with pytest.warns(
        UserWarning, match=r"head: linear 4->4 .* fused linear cannot run here: RuntimeError: no"
    ):
        failed = choosing._failed(rows, forms, seat)
    assert failed == {"fused linear": "RuntimeError: no configuration runs on this GPU:"}


@pytest.mark.parametrize(
    ("conv", "why"),
    [
        (nn.Conv2d(4, 4, 3, stride=(1, 2)), "stride is (1, 2); it must be the same on both axes"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padding is same, zeros; it must be a pair of numbers, zeros"),
        (nn.Conv2d(4, 8, 3, groups=2), "groups is 2; it must be 1"),
        (nn.Conv2d(4, 4, 3).double(), "weight is torch.float64; the kernels have no such product"),
        (nn.Conv2d(4, 4, 3, padding=1), None),
    ],
)
def test_convolutions_that_have_no_kernel_stay_with_the_library(conv: nn.Conv2d, why: str | None) -> None:
    assert modules.FusedConv2d.why_not(conv) == why


@pytest.mark.parametrize("change", [copy.deepcopy, lambda layer: layer.to(memory_format=torch.channels_last)])
def test_filters_lie_as_the_kernel_reads_them_whatever_goes_over_the_model(
    change: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    for name in ("fused_conv2d", "depthwise_conv2d"):
        monkeypatch.setattr(modules, name, lambda input, weight, *_, **__: seen.append(weight))
    dense, taps = nn.Conv2d(6, 4, 3), nn.Conv2d(8, 8, (5, 3), padding=1, groups=8)
    for layer in (modules.FusedConv2d.from_conv(dense), modules.DepthwiseConv2d.from_conv(taps)):
        change(layer)(torch.ones(1, 8, 9, 9))
    assert seen[0].equal(dense.weight) and seen[1].equal(taps.weight)
    assert seen[0].permute(0, 2, 3, 1).is_contiguous() and seen[1][:, 0].permute(1, 2, 0).is_contiguous()


def test_what_is_no_depthwise_convolution_is_refused() -> None:
    assert modules.DepthwiseConv2d.why_not(nn.Conv2d(4, 8, 3, groups=4)) is not None
    assert modules.DepthwiseConv2d.why_not(nn.Conv2d(8, 8, 9, groups=8)) is not None
    assert modules.DepthwiseConv2d.why_not(nn.Conv2d(8, 8, 3, groups=8)) is None


class Clock:
    """A GPU that takes ``seconds`` for what runs between two events, and nothing else."""

    def __init__(self) -> None:
        self.now, self.seen = 0.0, list[str]()

    def call(self, name: str, seconds: float) -> None:
        self.now, self.seen = self.now + seconds, [*self.seen, name]

    def event(self, enable_timing: bool) -> SimpleNamespace:
        event = SimpleNamespace(at=0.0)
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda end: 1e3 * (end.at - event.at)
        return event


def test_gpu_times_are_medians_of_the_device_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, empty = Clock(), torch.empty
    monkeypatch.setattr(torch.cuda, "Event", clock.event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: clock.call("hold", 1.0))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch, "empty", lambda *sizes, dtype, device: empty(1, dtype=dtype))
    calls = {
        "ours": lambda: clock.call("ours", 2e-6 if clock.seen.count("ours") < 3 else 5e-6),
        "torch": lambda: clock.call("torch", 3e-6),
    }
    found = gpu_timing.interleaved(calls, 5)
    assert found == pytest.approx({"ours": 5e-6, "torch": 3e-6})
    timed = [name for name in clock.seen if name != "hold"]
    assert timed == ["ours", "torch", "ours", "torch", "torch", "ours", *timed[6:]] and len(timed) == 12


def test_a_gpu_is_timed_by_its_own_clock_while_it_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    second, current = torch.device("cuda", 1), list[torch.device]()

    def timed(calls: Mapping[str, object], rounds: int) -> dict[str, float]:
        assert current == [second]
        return dict.fromkeys(calls, float(rounds))

    @contextlib.contextmanager
    def device(wanted: torch.device) -> Iterator[None]:
        current.append(wanted)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(gpu_timing, "interleaved", timed)
    monkeypatch.setattr(gpu_timing, "machine", lambda: {"gpu": str(current)})
    there: Any = SimpleNamespace(device=second)
    assert choosing._timed({"ours": nn.Identity()}, (there,), 3, beside=0) == {"ours": 3.0}
    assert place.machine(second) == {"gpu": str([second])}
    assert place.all_rows(second) == gpu_rows.ROWS and "processor" in place.machine(torch.device("cpu"))


def test_timings_are_kept_by_gpu_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    board = SimpleNamespace(name="NVIDIA H200", multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: board)
    monkeypatch.setattr(gpu_timing, "version", lambda package: "3.6.0")
    assert gpu_timing.machine() == {
        "gpu": "NVIDIA H200",
        "multiprocessors": 132,
        "torch": torch.__version__,
        "triton": "3.6.0",
    }
