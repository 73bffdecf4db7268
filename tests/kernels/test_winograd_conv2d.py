"""``leanmark::winograd_conv2d``: its numerics, its registration, and how it explains mistakes."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import packing, reference, winograd_conv2d
from leanmark_kernels.winograd_forms import FORMS, Form, form_for

TILES = (2, 4)
each_form_and_as_stored = pytest.mark.parametrize(
    ("form", "as_stored"),
    [*((form, False) for form in FORMS), (form_for(3, 1, 4), True)],
    ids=lambda one: f"{one.kernel}/{one.stride} in {one.tile}" if isinstance(one, Form) else str(one),
)
as_stored_or_ahead = pytest.mark.parametrize("as_stored", [False, True], ids=["ahead", "as stored"])
each_form = pytest.mark.parametrize(
    "form", FORMS, ids=lambda form: f"{form.kernel}/{form.stride} in {form.tile}"
)
needs_native = pytest.mark.skipif(
    not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}"
)


def tensors(
    channels: int, filters: int, size: int, seed: int, batch: int = 1, kernel: int = 3
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, channels, size, size, generator=generator),
        torch.randn(filters, channels, kernel, kernel, generator=generator) / (kernel**2 * channels) ** 0.5,
        torch.randn(filters, generator=generator),
    )


@pytest.mark.parametrize(("tile", "bound"), [(2, 1e-6), (4, 2e-5)])
@pytest.mark.parametrize(("channels", "size"), [(16, 32), (64, 28), (128, 14), (512, 7)])
def test_error_is_what_the_docstring_states(tile: int, bound: float, channels: int, size: int) -> None:
    input, weight, bias = tensors(channels, channels, size, seed=1)
    exact = F.conv2d(input.double(), weight.double(), bias.double(), padding=1)
    packed = packing.pack_winograd(weight, tile)
    actual = winograd_conv2d(input, packed, bias, out_channels=channels)
    assert (actual - exact).abs().max() <= bound * exact.abs().max()


@pytest.mark.parametrize(("channels", "size"), [(16, 32), (64, 28), (128, 14), (512, 7)])
def test_weights_that_are_transformed_when_used_are_as_exact(channels: int, size: int) -> None:
    input, weight, bias = tensors(channels, channels, size, seed=1)
    exact = F.conv2d(input.double(), weight.double(), bias.double(), padding=1)
    packed = packing.pack_winograd(weight, 4, as_stored=True)
    assert packed.shape == (channels // 16, channels, 3, 3, 16)
    assert packing.unpack_winograd(packed, channels).equal(weight)
    actual = winograd_conv2d(input, packed, bias, out_channels=channels)
    assert (actual - exact).abs().max() <= 2e-5 * exact.abs().max()


@pytest.mark.parametrize(
    ("channels", "filters", "size", "kernel", "tile", "bound"),
    [
        (64, 128, 56, 3, 2, 1e-6),
        (256, 512, 14, 3, 2, 1e-6),
        (3, 64, 224, 7, 3, 2e-5),
        (32, 32, 20, 7, 3, 2e-5),
    ],
)
def test_error_at_stride_2(
    channels: int, filters: int, size: int, kernel: int, tile: int, bound: float
) -> None:
    input, weight, bias = tensors(channels, filters, size, seed=1, kernel=kernel)
    options: dict[str, Any] = {"padding": kernel // 2, "stride": 2}
    exact = F.conv2d(input.double(), weight.double(), bias.double(), **options)
    packed = packing.pack_winograd(weight, tile, stride=2)
    actual = winograd_conv2d(input, packed, bias, out_channels=filters, **options)
    assert (actual - exact).abs().max() <= bound * exact.abs().max()


def test_known_values_at_stride_2() -> None:
    """Pixels 1 to 25 where only the middle of the window counts, and where only its corners do."""
    pixels = torch.arange(1.0, 26).view(1, 1, 5, 5)
    middle, corners = torch.zeros(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)
    middle[0, 0, 1, 1] = 1
    corners[0, 0, ::2, ::2] = 1
    for weight, expected in (
        (middle, [[1, 3, 5], [11, 13, 15], [21, 23, 25]]),
        (corners, [[7, 16, 9], [24, 52, 28], [17, 36, 19]]),
    ):
        output = winograd_conv2d(pixels, packing.pack_winograd(weight, 2, stride=2), out_channels=1, stride=2)
        torch.testing.assert_close(output[0, 0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize(("tile", "as_stored"), [(2, False), (4, False), (4, True)])
def test_known_values(tile: int, as_stored: bool) -> None:
    """Ones under a window of ones: nine in the middle, six at an edge, four in a corner."""
    packed = packing.pack_winograd(torch.ones(1, 1, 3, 3), tile, as_stored=as_stored)
    bias, residual = torch.tensor([-5.0]), torch.zeros(1, 1, 3, 3)
    residual[0, 0, 1, 1] = 0.5
    output = winograd_conv2d(torch.ones(1, 1, 3, 3), packed, bias, residual, out_channels=1, relu=True)
    expected = torch.tensor([[[[0.0, 1.0, 0.0], [1.0, 4.5, 1.0], [0.0, 1.0, 0.0]]]])
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [3, 5])
def test_7x7_reads_images_in_any_layout(channels: int) -> None:
    input, weight, bias = tensors(channels, 20, 19, seed=6, batch=2, kernel=7)
    packed = packing.pack_winograd(weight, 3, stride=2)
    wide = torch.zeros(2, channels, 19, 40)
    wide[..., 1:39:2] = input
    expected = winograd_conv2d(input, packed, bias, out_channels=20, padding=3, stride=2)
    exact = F.conv2d(input, weight, bias, stride=2, padding=3)
    torch.testing.assert_close(expected, exact, atol=1e-4, rtol=0)
    for same in (
        input.contiguous(memory_format=torch.channels_last),
        wide[..., 1:39:2],
        input.mT.contiguous().mT,
    ):
        assert winograd_conv2d(same, packed, bias, out_channels=20, padding=3, stride=2).equal(expected)


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_reference_is_a_convolution_by_weights_as_they_are_stored(padding: int) -> None:
    input, weight, bias = (t.double() for t in tensors(5, 20, 9, seed=2, batch=2))
    packed = packing.pack_winograd(weight.float(), 4, as_stored=True).double()
    actual = reference.winograd_conv2d(input, packed, bias, None, 20, padding, 1, True)
    exact = F.conv2d(input, weight.float().double(), bias, padding=padding).relu()
    torch.testing.assert_close(actual, exact, atol=1e-12, rtol=0)


@each_form
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_reference_is_a_convolution(form: Form, padding: int) -> None:
    input, weight, bias = (t.double() for t in tensors(5, 20, 9, seed=2, batch=2, kernel=form.kernel))
    packed = packing.pack_winograd(weight.float(), form.tile, form.stride).double()
    actual = reference.winograd_conv2d(input, packed, bias, None, 20, padding, form.stride, True)
    exact = F.conv2d(input, weight.float().double(), bias, form.stride, padding).relu()
    torch.testing.assert_close(actual, exact, atol=1e-5, rtol=0)


@needs_native
@each_form_and_as_stored
@pytest.mark.parametrize("size", [7, 40, 75])
def test_threads_do_not_change_a_bit(form: Form, as_stored: bool, size: int) -> None:
    """Small images are shared out within a block of tiles, large ones block by block."""
    input, weight, bias = tensors(40, 48, size, seed=3, kernel=form.kernel)
    packed = packing.pack_winograd(weight, form.tile, form.stride, as_stored=as_stored)
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outputs.append(
                winograd_conv2d(input, packed, bias, out_channels=48, padding=3, stride=form.stride)
            )
    finally:
        torch.set_num_threads(before)
    assert outputs[0].equal(outputs[1])
    assert outputs[0].equal(outputs[2])


@needs_native
def test_callers_at_the_same_time_do_not_wait_for_one_another() -> None:
    """Each has threads of its own, more than there are cores, and gets what it gets alone."""
    cases = [(size, *tensors(40, 48, size, seed=size)) for size in (7, 40)] * 2
    packed = [packing.pack_winograd(weight, 2) for _, _, weight, _ in cases]

    def outputs(index: int, threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        _, input, _, bias = cases[index]
        return [winograd_conv2d(input, packed[index], bias, out_channels=48) for _ in range(20)]

    before = torch.get_num_threads()
    try:
        expected = [outputs(index, 1)[0] for index in range(len(cases))]
        with ThreadPoolExecutor(len(cases)) as pool:
            found = list(pool.map(partial(outputs, threads=3), range(len(cases))))
    finally:
        torch.set_num_threads(before)
    assert all(one.equal(exact) for many, exact in zip(found, expected, strict=True) for one in many)


@as_stored_or_ahead
def test_nan_reaches_the_tiles_it_touches_and_no_others(as_stored: bool) -> None:
    input, weight, bias = tensors(3, 4, 12, seed=4)
    input[0, 1, 0, 0] = float("nan")
    packed = packing.pack_winograd(weight, 4, as_stored=as_stored)
    output = winograd_conv2d(input, packed, bias, out_channels=4, relu=True)
    assert output[:, :, :2, :2].isnan().all()
    assert not output[:, :, 4:, :].isnan().any()
    assert not output[:, :, :, 4:].isnan().any()


@each_form_and_as_stored
def test_registration_is_complete(form: Form, as_stored: bool) -> None:
    input, weight, bias = tensors(5, 18, 6, seed=5, batch=2, kernel=form.kernel)
    packed = packing.pack_winograd(weight, form.tile, form.stride, as_stored=as_stored)
    residual = torch.zeros(2, 18, *[form.size(6, 1)] * 2)
    arguments = (input, packed, bias, residual, 18, 1, form.stride, True)
    torch.library.opcheck(torch.ops.leanmark.winograd_conv2d.default, arguments)


X, U, B = torch.zeros(2, 5, 6, 7), packing.pack_winograd(torch.zeros(18, 5, 3, 3), 4), torch.zeros(18)
W = packing.pack_winograd(torch.zeros(18, 5, 3, 3), 4, as_stored=True)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": X.double()}, TypeError, "input is torch.float64; it must be torch.float32"),
        ({"weight": U.half()}, TypeError, "weight is torch.float16; it must be torch.float32"),
        ({"bias": B.int()}, TypeError, "bias is torch.int32; it must be torch.float32"),
        ({"input": X[0]}, ValueError, r"input is \[5, 6, 7\]; it must be \[N, 5, H, W\]"),
        ({"input": X[:, :4]}, ValueError, "it must be .* since weight was packed for 5 channels"),
        ({"weight": U[:9]}, ValueError, r"weight is \[9, 2, 5, 16\]; it must be \[16 or 36, panels, C, 16\]"),
        ({"weight": W[:, :, :2]}, ValueError, r"it must be .* or, with stride 1, \[panels, C, 3, 3, 16\]"),
        ({"weight": W, "stride": 2}, ValueError, r"weight is \[2, 5, 3, 3, 16\]; it must be"),
        ({"weight": W[:, :4]}, ValueError, "it must be .* since weight was packed for 4 channels"),
        ({"weight": W[:1]}, ValueError, "out_channels is 18; it must be from 1 to 16"),
        ({"stride": 3}, ValueError, "stride is 3; it must be 1 or 2"),
        ({"stride": 2}, ValueError, r"it must be \[N, 1, H, W\], since .* for 1 channels and stride 2"),
        ({"out_channels": 33}, ValueError, "out_channels is 33; it must be from 17 to 32"),
        ({"bias": B[:3]}, ValueError, r"bias is \[3\]; it must be \[18\] or None"),
        ({"residual": X}, ValueError, r"residual is \[2, 5, 6, 7\]; it must be \[2, 18, 6, 7\]"),
        ({"padding": -1}, ValueError, "padding is -1; it must be 0 or more"),
        ({"input": X[:, :, :2], "padding": 0}, ValueError, "height and width must be at least 3"),
        ({"weight": U.to("meta")}, ValueError, "weight is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"winograd_conv2d: .*{message}"):
        winograd_conv2d(**{"input": X, "weight": U, "bias": B, "out_channels": 18, **changed})


@needs_native
@pytest.mark.parametrize(
    "arguments",
    [
        (X.double(), U, B, None, 18, 1, 1, True),
        (X[0], U, B, None, 18, 1, 1, True),
        (X[:, :4], U, B, None, 18, 1, 1, True),
        (X, U[:9], B, None, 18, 1, 1, True),
        (X, U, B[:3], None, 18, 1, 1, True),
        (X, U, B, X, 18, 1, 1, True),
        (X, U, B, None, 33, 1, 1, True),
        (X, U, B, None, 18, -1, 1, True),
        (X[:, :, :2], U, B, None, 18, 0, 1, True),
        (X, U, B, None, 18, 1, 2, True),
        (X, U, B, None, 18, 1, 0, True),
        (X, W[:, :, :2], B, None, 18, 1, 1, True),
        (X, W[..., :8], B, None, 18, 1, 1, True),
        (X, W[:, :4], B, None, 18, 1, 1, True),
        (X, W[:1], B, None, 18, 1, 1, True),
        (X, W, B, None, 18, 1, 2, True),
        (X, W[None], B, None, 18, 1, 1, True),
    ],
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[Tensor | int | None, ...]) -> None:
    with pytest.raises(RuntimeError, match="winograd_conv2d: "):
        torch.ops.leanmark.winograd_conv2d(*arguments)
