"""Converts small models as on a GPU, in Triton's interpreter, and fails at the first that is wrong.

``TRITON_INTERPRET=1`` has to be set. Nothing is timed: the candidate that is asked for is the fastest.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from leanmark_kernels.convert import Converted, Recipe, choosing, convert
from leanmark_kernels.packed_state import PackedModule
from leanmark_kernels.triton.packing import pack_blocks

LOST = {"fp32": 2e-3, "sparse": 2e-3, "w8": 2e-2, "int8-exact": 3e-2, "w4": 0.2}
"""Of the largest output, by a few layers in float16."""


class Net(nn.Module):
    """Every kind of convolution: dense, strided, depthwise, 1x1, with a residual, and one that is torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.SiLU())
        self.point, self.norm = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16)
        self.tall = nn.Conv2d(16, 16, (3, 1), padding=(1, 0))
        self.classify = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.norm(self.point(self.depthwise(x))) + x)
        result: Tensor = self.classify(self.tall(x).mean((2, 3)))
        return result


class Feed(nn.Module):
    """The half of a transformer's layer that only has products."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.feed = (
            nn.LayerNorm(64),
            nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.feed(self.norm(x))
        return result


class Decoder(nn.Module):
    """One token after a few others, which cannot be traced: it asks how many."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.feed, self.score = nn.Embedding(20, 64), Feed(), nn.Linear(64, 20, bias=False)
        self.score.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        states = self.embed(tokens)
        for _ in range(len(tokens)):
            states = states + torch.softmax(states @ states.mT, -1) @ states
        result: Tensor = self.score(self.feed(states)[:, -1])
        return result


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 64), nn.GELU(), nn.Linear(64, 3))


def pruned() -> nn.Module:
    model = mlp()
    with torch.no_grad():
        model.get_parameter("0.weight")[:128, 64:] = 0.0
    return model


class Called(TorchDispatchMode):
    """How often each operator of ours ran."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.namespace == "leanmark_kernels":
            self.counts[function.name().partition("::")[2].partition(".")[0]] += 1
        return function(*args, **(kwargs or {}))


def prefer(*names: str) -> None:
    def timed(
        calls: Mapping[str, Callable[[], object]], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name.startswith(names) else 2e-6 for name in calls}

    choosing.interleaved = timed  # type: ignore[attr-defined]


def check(model: nn.Module, input: Tensor, weights: str, ran: dict[str, int]) -> Converted:
    """In float16, for this input and another batch; every operator that is named ran, no other of ours."""
    torch.manual_seed(0)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            assert part.running_mean is not None and part.running_var is not None
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
    half = model.eval().half()
    converted = convert(half, input, Recipe(weights=weights, cache=None))
    for given in (input, torch.cat([input, input.flip(-1)])):
        with torch.no_grad():
            exact = half.double()(given.double() if given.is_floating_point() else given)
        half.half()
        with Called() as called, torch.inference_mode():
            found = converted(given)
        assert found.dtype == torch.float16
        assert called.counts == ran, f"{type(model).__name__} {weights}: {called.counts}"
        error = float((found.double() - exact).abs().max() / exact.abs().max())
        assert error < LOST[weights], f"{type(model).__name__} {weights}: {error}"
    saved_and_loaded(converted, input)
    return converted


def saved_and_loaded(converted: Converted, input: Tensor) -> None:
    file = io.BytesIO()
    torch.save(converted, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    with torch.inference_mode():
        expected = converted(input)
    with torch.no_grad():
        for part in loaded.modules():
            for name, buffer in part._buffers.items() if isinstance(part, PackedModule) else ():
                if buffer is not None and buffer.is_floating_point():
                    assert name != "format" and buffer.zero_() is buffer
        loaded.load_state_dict(converted.state_dict())
        assert loaded(input).equal(expected)


def main() -> None:
    torch.manual_seed(0)
    vectors, images, tokens = (
        torch.randn(3, 128).half(),
        torch.randn(1, 3, 9, 7).half(),
        torch.arange(4)[None],
    )
    prefer("fused", "depthwise")
    found = check(mlp(), vectors, "fp32", {"fused_linear": 3})
    assert [one.what for one in found.choices] == [
        "linear 128->256 + bias + relu of 3x128 in float16",
        "linear 256->64 + bias + gelu of 3x256 in float16",
        "linear 64->3 + bias of 3x64 in float16",
    ]
    check(Net(), images, "fp32", {"fused_conv2d": 2, "depthwise_conv2d": 1, "fused_linear": 1})
    found = check(Decoder(), tokens, "fp32", {"fused_linear": 3})
    assert [one.module for one in found.untraced] == ["Decoder"]
    for model, input in ((mlp(), vectors), (Decoder(), tokens)):
        for weights in ("w8", "w4"):
            check(model, input, weights, {"weight_only_linear": 3})
        check(model, input, "int8-exact", {"int8_linear": 3, "quantize_activations": 3})
    check(Net(), images, "int8-exact", {
        "int8_linear": 2, "quantize_activations": 2, "fused_conv2d": 1, "depthwise_conv2d": 1
    })  # fmt: skip
    prefer("sparse 128")
    found = check(pruned(), vectors, "sparse", {})
    assert [one.chosen for one in found.choices] == ["torch"] * 3, "no block of 128 is empty"
    prefer("sparse 64")
    found = check(pruned(), vectors, "sparse", {"block_sparse_linear": 1})
    assert found.body.get_submodule("0").sparsity == 0.25
    assert len(pack_blocks(pruned().get_parameter("0.weight"), 64).values) == 6
    prefer("torch")
    assert not check(mlp(), vectors, "fp32", {}).choices[0].operator
    refused()
    print("all right")


def refused() -> None:
    """Recipes without kernels, a dtype that has none, and a form that is not exact enough."""
    model = mlp().half().eval()
    try:
        convert(model, torch.randn(3, 128).half(), Recipe(weights="w4a8", cache=None))
    except ValueError as error:
        assert "'w4a8' have no operator on cuda; it must be one of fp32, sparse, w8, w4, int8" in str(error)
    else:
        raise AssertionError("w4a8 was accepted")
    try:
        convert(mlp().double().eval(), torch.randn(3, 128).double(), Recipe(cache=None))
    except TypeError as error:
        assert "'0.weight' is torch.float64; it must be torch.float32 or torch.float16 or" in str(error)
    else:
        raise AssertionError("float64 was accepted")
    found = convert(model, torch.randn(3, 128).half(), Recipe(weights="w4", error=1e-3, cache=None))
    assert {one.chosen for one in found.choices} <= {"torch", "fused linear"}
    assert "is above 1e-03" in str(found.choices[0].timings)


if __name__ == "__main__":
    main()
