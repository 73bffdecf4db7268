"""``convert`` on models that are easily fused wrongly: computed the same, or refused with a reason."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, fx, nn

from leanmark_kernels.convert import Recipe, choosing, conversion, convert, libraries, rows

from .convert_models import UNCACHED, images, largest_error


class Positioned(nn.Module):
    """Adds a parameter for one image, perhaps scaled first, to every image of a batch."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.position = nn.Parameter(torch.randn(1, 8, 6, 6))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        position = self.position if self.scale == 1 else self.position * self.scale
        result: Tensor = self.conv(x) + position
        return result


class SharedProjection(nn.Module):
    """An inverted residual whose last layer is also called on something else."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(4, 16, 1), nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.project, self.wide, self.relu6 = nn.Conv2d(16, 6, 1), nn.Conv2d(4, 16, 1), nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        inverted = self.project(self.relu6(self.depthwise(self.relu6(self.expand(x)))))
        result: Tensor = inverted + 2 * self.project(self.wide(x))
        return result


class Viewing(nn.Module):
    """Not traced, since it branches on values, and its view needs images that are not in channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.conv(x)
        return features.view(len(x), -1) if features.sum() > 0 else -features.view(len(x), -1)


class Overwriting(nn.Module):
    """Changes its input in place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.linear(x.mul_(2).to(self.linear.weight.dtype))
        return result


class NineTenths(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 0.9 * x


def test_a_model_that_is_fused_wrongly_is_refused_however_wide_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conversion, "fuse", lambda *_: NineTenths())
    with pytest.raises(ValueError, match=r"computes something else .* its outputs are off by 0\.1 of"):
        convert(nn.Identity().eval(), torch.ones(2, 4), Recipe(weights="w4a8", rounds=1, cache=None))


def test_a_part_in_training_mode_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)).eval()
    model[1].train()
    with pytest.raises(ValueError, match=r"'1' is in training mode; call model.eval\(\) first"):
        convert(model, images(2), UNCACHED)


@pytest.mark.parametrize("fastest", ["torch", "direct", "pool"])
def test_a_converted_model_is_traced_by_its_body(fastest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(
        calls: Mapping[str, object], rounds: int, beside: int = 0, inputs: object = ()
    ) -> dict[str, float]:
        return {name: 1e-6 if name.endswith(fastest) else 2e-6 for name in calls}

    monkeypatch.setattr(choosing, "interleaved", timed)
    layers = (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1))
    converted = convert(nn.Sequential(*layers).eval(), images(2), UNCACHED)
    assert converted.takes_any_layout == (fastest == "direct")
    for model in (converted, nn.Sequential(converted, nn.Flatten())):
        with pytest.raises(TypeError, match=r"cannot be traced by torch.fx; its .body can"):
            fx.symbolic_trace(model)
    assert fx.symbolic_trace(converted.body)(images(3)).equal(converted(images(3)))
    compiled = torch.compile(converted, backend="eager", fullgraph=True)
    with torch.no_grad():
        assert compiled(images(2)).equal(converted(images(2)))


@pytest.mark.parametrize("scale", [1, 2])
def test_a_parameter_that_is_added_is_broadcast_to_any_batch(scale: int) -> None:
    model = Positioned(scale).eval()
    converted = convert(model, images(1), UNCACHED)
    assert converted(images(2)).shape == (2, 8, 6, 6)
    assert largest_error(converted, model, images(2)) < 1e-5
    assert [choice.what for choice in converted.choices] == ["conv 4->8 3x3 padding 1x1 + bias of 1x4x6x6"]


def test_an_inverted_residual_whose_projection_is_shared_stays_in_parts() -> None:
    model = SharedProjection().eval()
    converted = convert(model, images(2), UNCACHED)
    assert largest_error(converted, model, images(3)) < 1e-5
    layers = [choice.layer for choice in converted.choices]
    assert sorted(layers) == ["depthwise", "expand", "project", "wide"]


def test_code_that_takes_no_channels_last_and_cannot_be_traced_is_named() -> None:
    model = nn.Sequential(Viewing(), nn.ReLU()).eval()
    expected = "convert: 0 cannot be traced, .* view size is not .* Use flatten or reshape in it"
    with pytest.raises(ValueError, match=expected):
        convert(model, images(2), UNCACHED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_the_example_stays_as_it_was(dtype: torch.dtype) -> None:
    example = torch.arange(12).reshape(2, 6).to(dtype)
    converted = convert(Overwriting().eval(), example, UNCACHED)
    assert example.equal(torch.arange(12).reshape(2, 6))
    assert converted.error < 1e-5


@pytest.mark.parametrize(
    ("instructions", "outlier", "chosen"),
    [("avx2", 1.0, "int7 exact"), ("avx2", 14.0, "int8 exact"), ("avx512_vnni", 1.0, "int8 exact")],
)
def test_seven_bits_are_taken_where_they_are_faster_and_exact_enough(
    instructions: str, outlier: float, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "instruction_set", lambda: instructions)
    monkeypatch.setattr(
        choosing, "_timed", lambda modules, *_: {one: float(one != "int7 exact") for one in modules}
    )
    torch.manual_seed(0)
    model, input = nn.Linear(256, 64).eval(), torch.randn(4, 256)
    with torch.no_grad():
        model.weight[:, 0] = 0.0
    input[:, 0] = outlier  # it takes the bits of all others
    (choice,) = convert(model, input, Recipe(weights="int8-exact", rounds=1, cache=None)).choices
    assert (choice.chosen, choice.weights) == (chosen, "int8-exact")


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("size", [1, 3])
def test_a_librarys_convolution_adds_to_images_of_any_size(size: int, activation: str | None) -> None:
    conv, image, residual = (
        nn.Conv2d(8, 8, 3, padding=1),
        torch.randn(2, 8, size, size),
        torch.randn(2, 8, 1, 1),
    )
    residual = residual.expand(2, 8, size, size).contiguous(memory_format=torch.channels_last)
    kept = residual.clone()
    with torch.no_grad():
        exact = conv(image) + residual
        found = libraries.OneDnnConv2d(conv, activation, tuple(image.shape))(image, residual)
    torch.testing.assert_close(found, exact if activation is None else exact.relu())
    assert torch.equal(residual, kept)
