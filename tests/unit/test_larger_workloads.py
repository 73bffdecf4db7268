"""The larger models: their published sizes without their weights; a tiny size of the same code in full."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanmark import registry
from leanmark.backends.base import Work
from leanmark.backends.eager import Eager
from leanmark.errors import Unsupported
from leanmark.models import fidelity
from leanmark.models.artifact import Artifact, Samples
from leanmark.models.macs import count_macs
from leanmark.record import Case
from leanmark.worker import prepare
from leanmark.workloads.base import Workload
from leanmark.workloads.decoder import Gpt2Decode, Gpt2Prefill
from leanmark.workloads.encoder import BertBase
from leanmark.workloads.mobilenet import MobileNetV2, mobilenet_v2
from leanmark.workloads.resnet import ResNet18, ResNet50, resnet18, resnet50
from leanmark.workloads.training import outputs
from leanmark_kernels.convert import Recipe, convert

TINY: dict[str, Workload] = {
    "resnet18": ResNet18(image=32, width=8),
    "resnet50": ResNet50(image=32, width=8),
    "mobilenet_v2": MobileNetV2(image=32, divisor=8),
    "bert": BertBase(width=32, heads=2, layers=2, vocabulary=50, length=8),
    "gpt2-prefill": Gpt2Prefill(width=32, heads=2, layers=2, vocabulary=50, length=8),
    "gpt2-decode": Gpt2Decode(width=32, heads=2, layers=2, vocabulary=50, length=8),
}


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (resnet18, 11_689_512),  # torchvision.models
        (resnet50, 25_557_032),
        (mobilenet_v2, 3_504_872),
        (lambda: Gpt2Prefill(length=1023).model(), 124_439_808),  # GPT-2 small: tied, 1024 places
    ],
)
def test_published_sizes(make: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        model = make()
    assert sum(one.numel() for one in model.parameters()) == parameters


def test_published_multiply_accumulates() -> None:
    with torch.device("meta"):
        model, image = resnet50(), torch.empty(1, 3, 224, 224)
    assert count_macs(model, image) == pytest.approx(4.09e9, rel=0.01)


@pytest.mark.parametrize("name", TINY)
def test_every_name_is_registered(name: str) -> None:
    assert registry.load("workloads", name) is type(TINY[name])


@pytest.mark.parametrize("workload", TINY.values(), ids=TINY)
def test_a_tiny_one_is_seeded_finite_and_has_no_right_answers(workload: Workload) -> None:
    data = workload.dataset()
    model, again = workload.model().eval(), workload.model().eval()
    found = outputs(model, data.test.inputs)
    assert torch.equal(found, outputs(again, data.test.inputs))
    assert found.isfinite().all() and found.std() > 1e-4
    assert data.test.targets.numel() == 0
    assert len(data.train.inputs) == len(data.train.targets) == 32


@pytest.mark.parametrize("name", [name for name in TINY if name != "gpt2-decode"])
def test_a_training_step_lowers_the_loss(name: str) -> None:
    workload = TINY[name]
    model, split = workload.model().train(), workload.dataset().train
    optimizer = workload.optimizer(model.parameters())
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = workload.loss(model(split.inputs[:4]), split.targets[:4])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_decoding_is_no_training() -> None:
    with pytest.raises(Unsupported, match="train gpt2-prefill"):
        TINY["gpt2-decode"].optimizer([])


def test_decoding_agrees_with_attention_written_out() -> None:
    model: Any = TINY["gpt2-decode"].model().eval()
    attention = model.decoder.blocks[0].attention
    x = torch.randn(3, 1, 32)
    with torch.no_grad():
        found = attention(x)
        query, key, value = attention.attention.split(x)
        past = attention._caches[3, torch.float32, torch.device("cpu")]
        keys = torch.cat([past[0, :, :, :8], key], 2)
        values = torch.cat([past[1, :, :, :8], value], 2)
        weights = (query @ keys.transpose(2, 3) / 4).softmax(-1)  # heads are 16 wide
        expected = attention.attention.join(weights @ values)
    torch.testing.assert_close(found, expected)


def test_decoding_repeats_exactly_and_ships_no_cache(tmp_path: Path) -> None:
    workload = TINY["gpt2-decode"]
    model, inputs = workload.model().eval(), workload.dataset().test.inputs
    first = outputs(model, inputs)
    assert torch.equal(outputs(model, inputs), first)
    assert torch.equal(outputs(copy.deepcopy(model), inputs), first)
    torch.save(model, tmp_path / "module.pt")
    loaded = torch.load(tmp_path / "module.pt", weights_only=False)
    assert loaded.decoder.blocks[0].attention._caches == {}
    assert torch.equal(outputs(loaded, inputs), first)


def test_every_matrix_of_the_decoder_can_be_converted() -> None:
    workload = TINY["gpt2-decode"]
    model, inputs = workload.model().eval(), workload.dataset().test.inputs[:1]
    converted = convert(model, inputs, Recipe(weights="w8", rounds=1, cache=None))
    matrices = sum(isinstance(part, nn.Linear) for part in model.modules())
    assert len(converted.choices) == matrices == 2 * 4 + 1
    with torch.no_grad():
        torch.testing.assert_close(converted(inputs), model(inputs), atol=0.03, rtol=0.03)


def test_later_tokens_are_hidden_from_earlier_ones() -> None:
    model = TINY["gpt2-prefill"].model().train()
    tokens = torch.arange(8).unsqueeze(0)
    changed = tokens.clone()
    changed[0, 7] = 40
    before, after = model(tokens), model(changed)
    assert before.shape == (1, 8, 50)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7], after[:, 7])


@pytest.mark.parametrize("name", ["resnet18", "bert", "gpt2-prefill", "gpt2-decode"])
def test_one_is_prepared_and_judged_like_any_workload(name: str, tmp_path: Path) -> None:
    workload = TINY[name]
    ready = prepare.run(workload, name, (), tmp_path, ("eager",))
    assert ready.model["eager"].macs > 0
    samples = Samples.load(tmp_path)
    assert samples.test_targets.size == 0
    work = Work(phase="inference", inputs=samples.batch_inputs[:2], targets=None, threads=1, device="cpu")
    executable = Eager().open(Artifact.of(tmp_path, "fp32"), work)
    executable.step()
    found = executable.predict(samples.test_inputs)
    error = fidelity.check(Case(workload=name), found, tmp_path)
    quality = fidelity.judge(found, samples, tmp_path, error)
    assert (quality.metric, quality.value, quality.lost) == ("agreement", 1.0, 0)
