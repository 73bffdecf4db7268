"""leanmark's own operators as techniques of a GPU, on a pretended one: they run their reference."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanmark import chain, plan
from leanmark.backends import profiled
from leanmark.backends.base import Work
from leanmark.backends.eager import Eager
from leanmark.errors import BadPlan, TookNoEffect, Unsupported
from leanmark.models.artifact import Artifact
from leanmark.models.executed import Executed
from leanmark.protocol.messages import WorkloadSpec
from leanmark.techniques import on_gpu
from leanmark.techniques.autocast import Autocast
from leanmark.techniques.base import Context, Technique
from leanmark.techniques.bf16 import Bf16
from leanmark.techniques.kernels import W4, W8, Int8Exact, Kernels
from leanmark.techniques.sparse import Sparse
from leanmark.techniques.torch_step import TorchStep
from leanmark.worker import prepare
from leanmark.workloads.base import Workload
from leanmark.workloads.encoder import BertBase
from leanmark.workloads.resnet import ResNet18
from leanmark_kernels.convert import choosing, place

pytestmark = pytest.mark.filterwarnings("ignore:leanmark_kernels runs its slower reference")

BERT = BertBase(width=64, heads=2, layers=1, vocabulary=50, length=8)
RESNET = ResNet18(image=32, width=8)


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every form of ours is faster than torch's, and what skips zeros the fastest."""

    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        speed = {"torch": 3e-6, "sparse": 1e-6}
        return {name: speed.get(name.partition(" ")[0], 2e-6) for name in calls}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(place, "is_gpu", lambda device: True)
    monkeypatch.setattr("leanmark_kernels.triton.why_unavailable", lambda: None)
    monkeypatch.setattr(choosing, "interleaved", timed)
    monkeypatch.setattr(profiled, "_below", lambda event: ())  # here they call operators of torch
    monkeypatch.setattr(on_gpu, "converted", partial(on_gpu.converted, device="cpu"))


def applied(workload: Workload, *techniques: Technique) -> tuple[nn.Module, Mapping[str, Any]]:
    """The changed model, and what the last technique says of it."""
    model = baseline = workload.model().eval()
    facts: Mapping[str, Any] = {}
    for one in techniques:
        after = one.apply(model, Context(workload=workload, baseline=baseline, device="cuda"))
        facts, model = one.verify(model, after), after
    return model, facts


def opened(workload: Workload, model: nn.Module, folder: Path, *techniques: Technique) -> Executed:
    """Saved, loaded and stepped; what ran, as if it had been on a GPU."""
    artifact = Artifact(folder)
    artifact.save_module(model)
    inputs = workload.dataset().train.inputs[:3].numpy()
    work = Work(
        phase="inference", inputs=inputs, targets=None, threads=1, device="cpu", techniques=techniques
    )
    ran = Eager().open(artifact, work).executed().operators
    ours = {name: n for name, n in ran.items() if name.startswith(("leanmark_kernels", "_scaled_dot"))}
    return Executed(operators=ours, threads=1, device="cuda")


def error(workload: Workload, model: nn.Module) -> float:
    inputs = workload.dataset().test.inputs[:4]
    with torch.no_grad():
        expected, found = workload.model().eval()(inputs), model(inputs)
    assert found.dtype == torch.float32
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("workload", "techniques", "ran"),
    [
        (BERT, (Kernels(),), "leanmark_kernels::fused_linear[float32]"),
        (BERT, (Bf16(), Kernels(batch=3)), "leanmark_kernels::fused_linear[bfloat16]"),
        (BERT, (W8(),), "leanmark_kernels::weight_only_linear[bfloat16+float32+int8]"),
        (BERT, (Bf16(), W8()), "leanmark_kernels::weight_only_linear[bfloat16+float32+int8]"),
        (BERT, (W4(),), "leanmark_kernels::weight_only_linear[bfloat16+float32+uint8]"),
        (BERT, (Int8Exact(),), "leanmark_kernels::int8_linear[float32+int8]"),
        (RESNET, (Bf16(), Kernels()), "leanmark_kernels::fused_conv2d[bfloat16]"),
    ],
    ids=str,
)
def test_the_kernels_are_there_and_ran(
    workload: Workload, techniques: tuple[Technique, ...], ran: str, tmp_path: Path
) -> None:
    model, facts = applied(workload, *techniques)
    assert facts["share"] > 0.5 and facts["own"] >= 5
    assert error(workload, model) < max(one.tolerance or 1e-3 for one in techniques)
    executed = opened(workload, model, tmp_path, *techniques)
    assert ran in executed.operators
    for one in techniques:
        one.verify_executed(executed)


def test_a_worker_prepares_for_the_device_that_it_is_told(tmp_path: Path) -> None:
    """With the parameters and MACs from before, and a smaller file that the next link finds."""
    ready = {
        text: prepare.run(BERT, "bert", chain.parse(text), tmp_path, ["eager"], device="cuda")
        for text in ("fp32", "bf16", "bf16+kernels", "w4", "w4+cuda_graphs")
    }
    before = ready["fp32"].model["eager"]
    for text in ("bf16+kernels", "w4", "w4+cuda_graphs"):
        after = ready[text].model["eager"]
        assert (after.parameters, after.macs) == (before.parameters, before.macs)
    for text in ("bf16+kernels", "w4"):
        assert ready[text].verified["own"] == len(ready[text].verified["layers"]) == 6
    assert ready["w4"].model["eager"].size_bytes < 0.5 * before.size_bytes


def test_square_blocks_are_pruned_and_skipped(tmp_path: Path) -> None:
    technique = Sparse(p=0.5, block=64)
    model, facts = applied(BERT, technique)
    assert facts["skipped_share"]["module.body.blocks.0.feed.0"] == 0.5
    technique.verify_executed(opened(BERT, model, tmp_path, technique))
    with pytest.raises(Unsupported, match=r"GPUs skip square blocks only: sparse\(block=64\), or 128"):
        applied(BERT, Sparse(block=4))


def test_kernels_that_failed_are_told() -> None:
    failed = {"feed.0": {"w8a16": "it spills"}, "feed.2": {"w8a16": "it spills"}}
    facts = {"untraced": {}, "left_alone": {}, "failed": failed}
    (doubt,) = W8().doubts(facts)
    assert doubt.code == "kernel-failed" and doubt.message.endswith("left out in feed.0 and 1 more")


def test_what_did_not_run_on_the_gpu_is_caught() -> None:
    on_processor = Executed(operators={"leanmark::packed_linear[float32]": 1}, threads=1, device="cuda")
    with pytest.raises(TookNoEffect, match=r"no operator like leanmark_kernels:: ran, only: leanmark::pack"):
        Kernels().verify_executed(on_processor)
    dense = Executed(operators={"leanmark_kernels::fused_linear[bfloat16]": 1}, threads=1, device="cuda")
    Bf16().verify_executed(dense)
    with pytest.raises(TookNoEffect, match=r"no operator like leanmark_kernels::weight_only_linear\["):
        W8().verify_executed(dense)


def test_autocast_around_the_kernels_is_refused() -> None:
    step = TorchStep(module=Autocast(nn.Linear(4, 4), torch.float16), inputs=torch.ones(1, 4, device="meta"))
    Kernels().deploy(step)
    object.__setattr__(step, "inputs", _OnGpu())
    with pytest.raises(Unsupported, match="put them behind bf16, not fp16"):
        Kernels().deploy(step)


class _OnGpu:
    device = torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "device", "reason"),
    [("w4", "cpu", "for processors there is w4a8"), ("w4a8", "cuda", "for GPUs there is w4")],
)
def test_a_recipe_of_the_other_device_is_refused_with_its_name_there(
    name: str, device: str, reason: str
) -> None:
    selection = plan.Selection(
        workloads=(WorkloadSpec(name="bert"),), techniques=(name,), backends=("eager",), device=device
    )
    with pytest.raises(BadPlan, match=f"{name} has no inference on {device}: .*; {reason}"):
        plan.make(selection, plan.QUICK)


@pytest.mark.parametrize("text", ["kernels", "w8", "int8-exact", "sparse(block=64)", "bf16+kernels"])
def test_the_other_recipes_are_for_both(text: str) -> None:
    assert all({"cpu", "cuda"} <= {*chain.build(link).devices} for link in chain.parse(text))


def test_float32_is_timed_as_it_will_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    backends: Any = torch.backends  # its annotations know no precisions

    def convert(model: nn.Module, example: torch.Tensor) -> nn.Module:
        seen.append(backends.cudnn.conv.fp32_precision)
        return model

    before = backends.cudnn.conv.fp32_precision
    on_gpu.converted(nn.Linear(2, 2), torch.ones(1, 2), convert, lower=False)
    assert seen == ["ieee"] and backends.cudnn.conv.fp32_precision == before
