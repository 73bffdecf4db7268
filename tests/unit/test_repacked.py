"""Techniques that put leanmark's own operators into a model: proof that they are there and that they ran."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import nn

import leanmark_kernels
from leanmark import chain
from leanmark.backends.base import Work
from leanmark.backends.eager import Eager
from leanmark.errors import TookNoEffect, Unsupported, UsageError
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.protocol.messages import Ready
from leanmark.techniques.base import Context
from leanmark.techniques.kernels import W4A8, W8, Int8Exact, Kernels
from leanmark.techniques.repacked import Repacked
from leanmark.techniques.sparse import Sparse
from leanmark.worker import prepare
from leanmark.workloads.base import Dataset, Split, Workload
from leanmark.workloads.training import seeded


class Rows(Workload):
    """Untrained; wide enough that the packed layer is faster than torch's at any batch."""

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(0):
            return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 4)).eval()

    def dataset(self) -> Dataset:
        inputs = torch.randn(32, 256, generator=torch.Generator().manual_seed(0))
        split = Split(inputs=inputs, targets=torch.arange(32) % 4)
        return Dataset(train=split, test=split)


class Sequences(Rows):
    """Most weights are where no operator of ours can have them."""

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(0):
            return Last(nn.GRU(16, 64, batch_first=True), nn.Linear(64, 4)).eval()

    def dataset(self) -> Dataset:
        inputs = torch.randn(8, 5, 16, generator=torch.Generator().manual_seed(0))
        split = Split(inputs=inputs, targets=torch.arange(8) % 4)
        return Dataset(train=split, test=split)


class Images(Rows):
    """Pools hold no weights, and are ours all the same."""

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(0):
            convolution = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
            return nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)).eval()

    def dataset(self) -> Dataset:
        inputs = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        split = Split(inputs=inputs, targets=torch.arange(4) % 4)
        return Dataset(train=split, test=split)


@dataclass(frozen=True)
class Attending(Rows):
    """torch's attention reads the weight of its last layer without calling it."""

    activation: nn.Module = field(default_factory=nn.ReLU)

    def model(self, seed: int = 0) -> nn.Module:
        with seeded(0):
            layer = nn.TransformerEncoderLayer(
                16, 2, 32, dropout=0.0, activation=self.activation, batch_first=True
            )
            return nn.Sequential(nn.Flatten(), nn.Linear(80, 64), nn.Unflatten(1, (4, 16)), layer).eval()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return super().loss(outputs[:, 0], targets)

    def dataset(self) -> Dataset:
        return Sequences().dataset()


class Last(nn.Module):
    def __init__(self, recurrent: nn.Module, out: nn.Module) -> None:
        super().__init__()
        self.recurrent, self.out = recurrent, out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.out(self.recurrent(x)[0][:, -1])
        return result


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def pretend(monkeypatch: pytest.MonkeyPatch, *fastest: str) -> None:
    """The timings of every layer, whatever this machine does meanwhile."""
    from leanmark_kernels.convert import choosing

    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name.startswith(fastest) else 2e-6 for name in calls}

    monkeypatch.setattr(choosing, "interleaved", timed)


def applied(technique: Repacked, workload: Workload) -> nn.Module:
    model = workload.model()
    return technique.apply(model, Context(workload=workload, baseline=model))


def executed(model: nn.Module, folder: Path) -> Executed:
    artifact = Artifact(folder)
    artifact.save_module(model)
    inputs = Rows().dataset().train.inputs.numpy()
    work = Work(phase="inference", inputs=inputs, targets=None, threads=1, device="cpu")
    return Eager().open(artifact, work).executed()


@pytest.mark.parametrize(
    ("technique", "row", "ran"),
    [
        (Kernels(), "packed fp32", {"leanmark::packed_linear[float32]": 2}),
        (Kernels(batch=8), "packed fp32", {"leanmark::packed_linear[float32]": 2}),
        (W8(), "packed w8", {"leanmark::packed_linear[float32+int8]": 2}),
        (W4A8(), "w4a8", {"leanmark::w4a8_linear": 2}),
        (Int8Exact(), "int8 exact", {"leanmark::int8_dynamic_linear": 2}),
        (Sparse(p=0.9), "sparse 1x1", {"leanmark::sparse_linear": 2}),
        (Sparse(p=0.5, block=4), "sparse 4x1", {"leanmark::sparse_linear": 2}),
    ],
    ids=repr,
)
def test_the_operators_are_there_and_ran(
    technique: Repacked, row: str, ran: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, row)
    after = applied(technique, Rows())
    facts = technique.verify(Rows().model(), after)
    assert facts["own"] == 2
    assert facts["share"] == 1.0
    assert facts["layers"]["0"]["chosen"] == row
    assert technique.doubts(facts) == ()
    found = executed(after, tmp_path / "after")
    technique.verify_executed(found)
    counted = {name: count for name, count in found.operators.items() if name.partition("[")[0] in str(ran)}
    assert {next(key for key in ran if name.startswith(key)): n for name, n in counted.items()} == ran


def test_weights_become_zero_in_the_asked_share_and_pattern() -> None:
    from leanmark.techniques.sparse import _mask

    weight = torch.tensor([[1.0, -8.0], [2.0, 7.0], [-3.0, 6.0], [4.0, 5.0], [9.0, 0.5]])
    assert _mask(weight, 0.5, 1).tolist() == [[0, 1], [0, 1], [0, 1], [0, 1], [1, 0]]
    assert _mask(weight, 0.5, 4).tolist() == [[0, 1], [0, 1], [0, 1], [0, 1], [1, 0]]
    assert _mask(weight, 0.25, 4).tolist() == [[1, 1], [1, 1], [1, 1], [1, 1], [1, 0]]
    assert _mask(torch.ones(4, 2, 3, 3), 0.01, 1).shape == (4, 2, 3, 3)
    blocks = torch.tensor([[1.0, 3.0], [4.0, 2.0]]).repeat_interleave(64, 0).repeat_interleave(64, 1)
    assert _mask(blocks, 0.5, 64)[::64, ::64].tolist() == [[0, 1], [1, 0]]
    assert _mask(blocks, 0.5, 64).sum() == 2 * 64 * 64


def test_weights_that_are_read_without_a_call_stay_zero_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "sparse 1x1")
    technique = Sparse(p=0.75)
    facts = technique.verify(Attending().model(), applied(technique, Attending()))
    inside = ("self_attn.in_proj", "self_attn.out_proj", "linear1", "linear2")
    assert facts["skipped_share"] == dict.fromkeys(["body.1", *(f"body.3.{one}" for one in inside)], 0.75)


def test_torchs_attention_takes_part_and_where_it_cannot_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, "packed w8")
    facts = W8().verify(Attending().model(), applied(W8(), Attending()))
    assert facts["share"] == 1.0 and W8().doubts(facts) == ()
    tanh = Attending(nn.GELU("tanh"))
    facts = W8().verify(tanh.model(), applied(W8(), tanh))
    assert facts["share"] == pytest.approx(80 * 64 / (80 * 64 + 16 * 64 + 2 * 16 * 32))
    (doubt,) = W8().doubts(facts)
    assert doubt.code == "left-alone"
    assert doubt.message.startswith(
        "the attention in 3 stays torch's: torch's fast path takes its activation"
    )


def test_zeros_stay_zero_through_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "sparse 1x1")
    technique = Sparse(p=0.9)
    facts = technique.verify(Rows().model(), applied(technique, Rows()))
    assert facts["skipped_share"] == pytest.approx({"body.0": 0.9, "body.2": 0.9}, abs=1e-3)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("p=1", "p must lie between 0 and 1"),
        ("block=3", "block must be 1, 4, 64 or 128"),
        ("batch=0", "at least 1"),
    ],
)
def test_options_of_sparse_are_checked(options: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        chain.build(chain.parse(f"sparse({options})")[0])


def test_a_model_that_was_not_converted_is_no_proof(tmp_path: Path) -> None:
    model = Rows().model()
    with pytest.raises(TookNoEffect, match="Sequential was not converted"):
        Kernels().verify(model, model)
    with pytest.raises(TookNoEffect, match=r"no operator like leanmark:: ran, only: addmm\[float32\]"):
        Kernels().verify_executed(executed(model, tmp_path / "before"))
    fp32 = Executed(operators={"leanmark::packed_linear[float32]": 2}, threads=1, device="cpu")
    Kernels().verify_executed(fp32)
    with pytest.raises(TookNoEffect, match=r"no operator like leanmark::packed_linear\[float32\+int8\] ran"):
        W8().verify_executed(fp32)


def test_eight_bits_for_few_of_the_weights_are_refused() -> None:
    with pytest.raises(
        Unsupported, match="read weights as w8 were chosen for only 2% of this model's weights"
    ):
        applied(W8(), Sequences())


def test_weights_of_recurrent_layers_count() -> None:
    from leanmark.techniques.repacked import share
    from leanmark_kernels.convert import Recipe, convert

    model = Sequences().model()
    converted = convert(model, Sequences().dataset().train.inputs[:1], Recipe(weights="w8", rounds=1))
    assert share(model, converted, "w8") == pytest.approx(64 * 4 / (64 * 4 + 3 * 64 * (16 + 64)))


def test_pools_of_ours_count_as_layers_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "direct", "max pool", "mean pool", "packed fp32")
    after = applied(Kernels(), Images())
    assert Kernels().verify(Images().model(), after)["own"] == 4
    after.get_submodule("body.0").add_module("2", nn.MaxPool2d(2))
    with pytest.raises(TookNoEffect, match="4 layers were chosen to be packed, and 3 are"):
        Kernels().verify(Images().model(), after)


def test_no_faster_layer_is_a_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "torch")
    nearest = r"nearest in 0 \(linear 256->512 \+ bias \+ relu of 1x256\): packed fp32 2.0 µs, torch 1.0 µs"
    with pytest.raises(Unsupported, match=f"in any of 2 layers here at batch 1; {nearest}"):
        applied(Kernels(), Rows())


def test_without_native_code_it_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leanmark_kernels, "why_unavailable", lambda: "it was not built")
    with pytest.raises(Unsupported, match="the native operators are not available: it was not built"):
        applied(Kernels(), Rows())


def test_more_samples_than_there_are() -> None:
    with pytest.raises(Unsupported, match="only 32 training samples to time a batch of 33"):
        applied(Kernels(batch=33), Rows())


def test_parameters_and_macs_stay_those_from_before(tmp_path: Path) -> None:
    ready: dict[str, Ready] = {}
    for text in ("fp32", "w8"):
        ready[text] = prepare.run(Rows(), "rows", chain.parse(text), tmp_path, ["eager"])
    before, after = ready["fp32"].model["eager"], ready["w8"].model["eager"]
    assert before.parameters == 256 * 512 + 512 + 512 * 4 + 4
    assert dataclasses.replace(after, size_bytes=0) == dataclasses.replace(before, size_bytes=0)
    assert after.size_bytes < 0.5 * before.size_bytes


@pytest.mark.parametrize("text", ["kernels", "w8", "w4a8", "int8-exact", "sparse(p=0.7)"])
def test_inference_on_eager_only(text: str) -> None:
    technique = chain.build(chain.parse(text)[0])
    assert technique.phases == ("inference",)
    assert technique.backends == ("eager",)
    assert "packed weights have no gradients" in technique.refusal
