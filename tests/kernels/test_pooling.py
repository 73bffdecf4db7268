"""``leanmark::max_pool2d`` and ``leanmark::mean_pool2d``, and their layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import MaxPool2d, max_pool2d, mean_pool2d
from leanmark_kernels.convert import Recipe, convert

needs_native = pytest.mark.skipif(
    not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}"
)


def image(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("channels", range(1, 71))
def test_largest_and_mean_of_any_number_of_channels(channels: int) -> None:
    input = image(2, channels, 7, 9)
    assert max_pool2d(input, (3, 3), (2, 2), (1, 1)).equal(F.max_pool2d(input, 3, 2, 1))
    torch.testing.assert_close(mean_pool2d(input), input.mean((2, 3), keepdim=True), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("kernel_size", "stride", "padding"),
    [((1, 1), (1, 1), (0, 0)), ((2, 3), (3, 1), (1, 0)), ((8, 8), (1, 5), (4, 4)), ((5, 1), (1, 2), (2, 0))],
)
@pytest.mark.parametrize("shape", [(2, 3, 9, 8), (1, 64, 8, 13), (0, 3, 9, 9), (2, 0, 9, 9)])
def test_windows_at_every_border(
    shape: tuple[int, ...], kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> None:
    input = image(*shape)
    output = max_pool2d(input, kernel_size, stride, padding)
    sizes = [
        (size + 2 * p - k) // step + 1
        for size, k, step, p in zip(shape[2:], kernel_size, stride, padding, strict=True)
    ]
    assert output.shape == (*shape[:2], *sizes)
    if input.numel():
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert output.equal(F.max_pool2d(input, kernel_size, stride, padding))
        last = input.contiguous(memory_format=torch.channels_last)
        assert max_pool2d(last, kernel_size, stride, padding).equal(output)


@pytest.mark.parametrize("channels", [1, 20, 70])
def test_not_a_number_and_infinities_pass_as_in_torch(channels: int) -> None:
    """Wherever in a window NaN is, also behind an infinity; padding is below -inf."""
    input = torch.full((1, channels, 6, 6), -torch.inf)
    input[:, :, 3, 2] = torch.inf
    input[:, ::2, 2, 3] = torch.nan
    expected = F.max_pool2d(input, 3, 1, 1)
    output = max_pool2d(input, (3, 3), (1, 1), (1, 1))
    torch.testing.assert_close(output, expected, equal_nan=True, atol=0, rtol=0)
    assert output.isnan().sum() == 9 * len(range(0, channels, 2))
    assert output[0, 0, 0, 0] == -torch.inf
    assert mean_pool2d(input)[0, 0].isnan().all()


def test_the_mean_of_many_pixels_is_as_exact_as_of_few() -> None:
    input = 1 + image(1, 5, 300, 300)
    exact = input.double().mean((2, 3), keepdim=True)
    torch.testing.assert_close(mean_pool2d(input).double(), exact, atol=2e-6, rtol=0)
    assert mean_pool2d(input[:0]).shape == (0, 5, 1, 1)


def test_gradients_are_those_of_torch() -> None:
    input, same = (image(2, 3, 5, 6).requires_grad_() for _ in range(2))
    max_pool2d(input, (3, 3), (2, 2), (1, 1)).square().sum().backward()
    F.max_pool2d(same, 3, 2, 1).square().sum().backward()
    assert input.grad is not None and same.grad is not None and input.grad.equal(same.grad)
    input.grad = None
    mean_pool2d(input).sum().backward()
    torch.testing.assert_close(input.grad, torch.full_like(input, 1 / 30))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"dilation": 2}, "dilation is 2; it must be 1"),
        ({"ceil_mode": True}, "ceil_mode is True; it must be False"),
        ({"return_indices": True}, "return_indices is True; it must be False"),
        ({"kernel_size": 9}, "kernel_size is 9; it must have at most 64 pixels"),
    ],
)
def test_what_stays_with_torch(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"MaxPool2d cannot replace .*: {reason}. Keep torch's layer"):
        MaxPool2d.from_pool(nn.MaxPool2d(**{"kernel_size": 3, **changed}))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: max_pool2d(x.double(), (3, 3), (1, 1)), TypeError, "input is torch.float64"),
        (lambda x: max_pool2d(x[0], (3, 3), (1, 1)), ValueError, r"input is \[3, 5, 5\]; it must be \[N, C"),
        (lambda x: max_pool2d(x, (3, 3), (0, 1)), ValueError, r"stride is \[0, 1\]"),
        (
            lambda x: max_pool2d(x, (3, 3), (1, 1), (2, 0)),
            ValueError,
            r"padding is \(2, 0\); it must be at m",
        ),
        (
            lambda x: max_pool2d(x, (9, 8), (1, 1)),
            ValueError,
            r"kernel_size is \(9, 8\); it must have at most",
        ),
        (lambda x: max_pool2d(x, (6, 3), (1, 1)), ValueError, r"height and width must be at least \[6, 3\]"),
        (lambda x: mean_pool2d(x[..., :0]), ValueError, "H and W at least 1"),
        (lambda x: mean_pool2d(x.numpy()), TypeError, "input is a ndarray; it must be a torch.Tensor"),
    ],
)
def test_mistakes_are_explained(
    call: Callable[[Tensor], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"(max|mean)_pool2d: .*{message}"):
        call(torch.zeros(2, 3, 5, 5))


@needs_native
@pytest.mark.parametrize(
    "changed",
    [
        {0: torch.zeros(2, 3, 5)},
        {0: torch.zeros(1, 3, 0, 5)},
        {0: torch.zeros(1, 3, 5, 5).double()},
        {1: (3, 1, 1, 1, 1)},
        {1: (9, 9, 1, 1, 1, 1)},
        {1: (6, 1, 1, 1, 0, 0)},
        {1: (3, 3, 0, 1, 1, 1)},
        {1: (3, 3, 1, 1, 2, 0)},
        {1: (3, 3, 1, 1, -1, 0)},
    ],
)
def test_direct_calls_never_read_stray_memory(changed: dict[int, object]) -> None:
    arguments = [torch.zeros(1, 3, 5, 5), (3, 3, 1, 1, 1, 1)]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match="max_pool2d: "):
        torch.ops.leanmark.max_pool2d(*arguments)
    for bad in (torch.zeros(3, 5, 5), torch.zeros(1, 3, 0, 5), torch.zeros(1, 3, 5, 5).double()):
        with pytest.raises(RuntimeError, match="mean_pool2d: "):
            torch.ops.leanmark.mean_pool2d(bad)


def test_registration_is_complete() -> None:
    torch.library.opcheck(torch.ops.leanmark.max_pool2d.default, (image(2, 3, 6, 5), (3, 3, 2, 2, 1, 1)))
    torch.library.opcheck(torch.ops.leanmark.mean_pool2d.default, (image(2, 3, 6, 5),))


def test_pools_of_a_model_are_measured_like_its_layers() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip
    input = image(2, 3, 12, 13)
    converted = convert(model, input, Recipe(rounds=1, cache=None))
    with torch.no_grad():
        torch.testing.assert_close(converted(input), model(input), atol=1e-5, rtol=0)
    own = {
        choice.layer: [one.candidate for one in choice.timings if one.own]
        for choice in converted.choices
        if "Pool" in choice.what
    }
    assert own == {"1": ["max pool"], "2": [], "3": ["mean pool"], "4": []}
    assert {choice.weights_count for choice in converted.choices if "Pool" in choice.what} == {0}
    with torch.no_grad():
        exported = torch.export.export(converted, (input,))
        torch.testing.assert_close(exported.module()(input), model(input), atol=1e-5, rtol=0)


def test_pools_of_anything_else_than_float32_images_stay_as_they_are() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.pool, self.now_and_then = nn.Linear(6, 6), nn.MaxPool2d(2), nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            often: Tensor = self.pool(self.layer(x)) + self.pool(x.double().unsqueeze(1)).squeeze(1)
            result: Tensor = often + self.now_and_then(x.unsqueeze(1)).squeeze(1) + self.now_and_then(x)
            return result

    model, input = Rows().eval(), image(2, 4, 6)
    converted = convert(model, input, Recipe(rounds=1, cache=None))
    assert [choice.layer for choice in converted.choices] == ["layer"]
    with torch.no_grad():
        torch.testing.assert_close(converted(input), model(input), atol=1e-5, rtol=0)
