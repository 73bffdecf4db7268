"""``leanmark::sparse_linear`` and ``leanmark::sparse_conv2d``, their packing and their layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leanmark_kernels
from leanmark_kernels import SparseConv2d, SparseLinear, sparse_conv2d, sparse_linear
from leanmark_kernels.sparse_few_rows import pack_few_rows
from leanmark_kernels.sparse_packing import SparseWeight, pack_sparse, sparsity, unpack_sparse

needs_native = pytest.mark.skipif(
    not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}"
)


def pruned(*shape: int, seed: int = 1, keep: float = 0.2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(*shape, generator=generator)
    return weight * (torch.rand(*shape, generator=generator) < keep)


def linear() -> nn.Linear:
    layer = nn.Linear(300, 18)
    with torch.no_grad():
        layer.weight.copy_(pruned(18, 300))
    return layer


def conv(**changed: Any) -> nn.Conv2d:
    options = {"in_channels": 6, "out_channels": 10, "kernel_size": 3, "padding": 1, **changed}
    layer = nn.Conv2d(**options)
    with torch.no_grad():
        layer.weight.copy_(pruned(*layer.weight.shape))
    return layer


def test_packing_keeps_what_is_not_zero_in_the_order_of_reading() -> None:
    weight = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, 3.0]])
    packed = pack_sparse(weight)
    assert packed.values.tolist() == [[1.0], [2.0], [3.0]]
    assert packed.indices.tolist() == [1, 0, 2]
    assert packed.starts.tolist() == [0, 1, 3]
    assert sparsity(packed, weight.numel()) == 0.5


def test_a_block_keeps_four_rows_where_one_is_not_zero() -> None:
    weight = torch.zeros(5, 300)
    weight[1, 7], weight[4, 299] = 2.0, 3.0
    packed = pack_sparse(weight, 4)
    assert packed.values.tolist() == [[0.0, 2.0, 0.0, 0.0], [3.0, 0.0, 0.0, 0.0]]
    assert packed.indices.tolist() == [7, 43]  # 299 is channel 43 of the second slab of 256
    assert packed.starts.tolist() == [0, 1, 1, 1, 2]
    assert unpack_sparse(packed, 5, 300, 1)[..., 0].equal(weight)


@needs_native
@pytest.mark.parametrize("few_rows", [False, True])
def test_infinity_stays_with_the_outputs_that_weigh_it_or_with_their_group(
    few_rows: bool,
) -> None:
    weight, input = torch.zeros(32, 64), torch.ones(1, 64)
    weight[0, 5], weight[8, 40], weight[20, 6] = 1.0, 2.0, 3.0
    input[0, 5] = torch.inf
    packed = pack_sparse(weight)
    again = pack_few_rows(packed, 32, 64) if few_rows else None
    with torch.no_grad():
        output = sparse_linear(input, packed, out_features=32, few_rows=again)[0]
    reached = 16 if few_rows else 1
    assert output[0] == torch.inf
    assert output[reached:].equal(input[0, 6:] @ weight[reached:, 6:].T)


def test_packing_for_few_rows_puts_windows_over_the_entries() -> None:
    weight = torch.zeros(2, 40)
    weight[0, 3], weight[0, 20], weight[1, 5], weight[1, 39] = 1.0, 2.0, 3.0, 4.0
    packed = pack_few_rows(pack_sparse(weight), 2, 40)
    assert packed is not None
    assert packed[:16].view(torch.int32).tolist() == [0, 0, 3, 4]
    assert packed[64 : 64 + 16].view(torch.float32).tolist() == [1.0, 3.0, 2.0, 4.0]
    steps = packed[64 + 16 + 64 :].view(torch.int16).unflatten(0, (-1, 6)).tolist()
    assert steps == [[0b11, 3, 0, 0, 2, 0], [0b01, 20, 0, 0, 0, 0], [0b10, 24, 0, 0, 15, 0]]
    blocks = pack_few_rows(pack_sparse(weight, 4), 2, 40)
    assert blocks is not None
    assert blocks[:16].view(torch.int32).tolist() == [0, 0, 4, 4 * 16]
    values = blocks[64 : 64 + 4 * 64].view(torch.float32).unflatten(0, (4, 16))
    assert values[:, :2].tolist() == [[1.0, 0.0], [0.0, 3.0], [2.0, 0.0], [0.0, 4.0]]
    assert blocks[-16:].view(torch.int16).tolist() == [3, 0, 5, 0, 20, 0, 24, 15]
    assert pack_few_rows(pack_sparse(torch.ones(1, 65537)), 1, 65537) is None


@pytest.mark.parametrize("block", [1, 4])
def test_known_values(block: int) -> None:
    weight = pack_sparse(torch.tensor([[0.0, 2.0], [-1.0, 0.0]]), block)
    bias, residual = torch.tensor([0.5, 0.0]), torch.tensor([[1.0, 1.0]])
    output = sparse_linear(torch.tensor([[3.0, 10.0]]), weight, bias, residual, out_features=2, relu=True)
    assert output.tolist() == [[21.5, 0.0]]
    filters = torch.zeros(1, 1, 3, 3)
    filters[0, 0, 0, 2] = 2.0  # the pixel above and to the right
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    shifted = sparse_conv2d(
        image, pack_sparse(filters, block), out_channels=1, kernel_size=(3, 3), padding=(1, 1)
    )
    assert shifted[0, 0].tolist() == [[0.0, 0.0, 0.0], [2.0, 4.0, 0.0], [8.0, 10.0, 0.0]]


@needs_native
@pytest.mark.parametrize(("size", "batch"), [(7, 1), (20, 3)])
def test_threads_do_not_change_a_bit(size: int, batch: int) -> None:
    """Where tiles are few, threads share the rows of each."""
    layer = SparseConv2d.from_dense(conv(in_channels=60, out_channels=70), relu=True)
    input = torch.randn(batch, 60, size, size, generator=torch.Generator().manual_seed(2))
    before = torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            outputs.append(layer(input))
    finally:
        torch.set_num_threads(before)
    assert outputs[0].equal(outputs[1])
    assert outputs[0].equal(outputs[2])


@pytest.mark.parametrize("block", [1, 4])
def test_registration_is_complete(block: int) -> None:
    weight = pack_sparse(pruned(10, 6, 3, 2), block)
    arguments = (
        torch.randn(2, 6, 9, 8),
        *weight,
        torch.zeros(10),
        torch.zeros(2, 10, 5, 6),
        10,
        (3, 2, 2, 1, 1, 0, 1, 2),
        True,
    )
    torch.library.opcheck(torch.ops.leanmark.sparse_conv2d.default, arguments)
    flat = pack_sparse(pruned(18, 5), block)
    linear = (torch.randn(2, 3, 5), *flat, torch.zeros(18), torch.zeros(2, 3, 18), 18, True)
    for few_rows in (None, pack_few_rows(flat, 18, 5)):
        torch.library.opcheck(torch.ops.leanmark.sparse_linear.default, (*linear, few_rows))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"bias": False, "stride": 2},
        {"padding": "same", "dilation": 2},
        {"padding": "valid", "kernel_size": (1, 5)},
        {"groups": 2, "stride": (1, 3), "padding": (0, 2)},
        {"kernel_size": 1, "padding": 0},
    ],
)
@pytest.mark.parametrize("block", [1, 4])
def test_conv_computes_what_it_was_made_from(changed: dict[str, object], block: int) -> None:
    original = conv(**changed)
    layer = SparseConv2d.from_dense(original, block=block, relu=True)
    input = torch.randn(2, 6, 11, 13, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = original(input)
        torch.testing.assert_close(layer(input), expected.relu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            layer(input, torch.ones_like(expected)), (expected + 1).relu(), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: pack_sparse(torch.zeros(3, 4)),
            ValueError,
            "a sparsity of 100 %; at least one value must not",
        ),
        (
            lambda: pack_sparse(torch.full((3, 4), float("nan"))),
            ValueError,
            "has 12 of 12 values that are NaN",
        ),
        (
            lambda: pack_sparse(torch.ones(3, 4).half()),
            TypeError,
            "weight is torch.float16; it must be torch.fl",
        ),
        (lambda: pack_sparse(torch.ones(4)), ValueError, r"weight is \[4\]; it must be \[O, K\] or"),
        (lambda: pack_sparse(torch.ones(3, 4), 2), ValueError, "block is 2; it must be 1 or 4"),
        (lambda: pack_sparse(torch.ones(3, 4, 1, 1), 1, 2), ValueError, "groups is 2; it must divide 3"),
        (lambda: pack_sparse(torch.ones(1, 1, 17, 17)), ValueError, "289 taps; H W must be at most 256"),
        (lambda: SparseLinear(3, 4, block=3), ValueError, "block is 3; it must be 1 or 4"),
        (
            lambda: SparseConv2d.from_dense(conv(padding_mode="reflect")),
            ValueError,
            "padding_mode is reflect",
        ),
        (
            lambda: SparseConv2d.from_dense(conv(kernel_size=2, padding="same")),
            ValueError,
            "it must be even. Keep torch's layer",
        ),
    ],
)
def test_weights_that_cannot_be_packed(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


X, W, B = torch.zeros(2, 6, 5, 5), pack_sparse(torch.ones(10, 6, 3, 3)), torch.zeros(10)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"input": X.double()}, TypeError, "input is torch.float64; it must be torch.float32"),
        ({"weight": W._replace(values=W.values.half())}, TypeError, "values is torch.float16; it must be"),
        ({"weight": W._replace(indices=W.indices.int())}, TypeError, "indices is torch.int32 and starts"),
        (
            {"weight": W._replace(values=W.values[:, 0])},
            ValueError,
            r"values is \[540\]; it must be \[entries",
        ),
        (
            {"weight": W._replace(indices=W.indices[1:])},
            ValueError,
            r"indices is \[539\]; it must be \[540\]",
        ),
        ({"input": X[0]}, ValueError, r"input is \[6, 5, 5\]; it must be \[N, C, H, W\]"),
        ({"out_channels": 9}, ValueError, r"starts is \[11\]; it must be \[10\]"),
        ({"kernel_size": (20, 20)}, ValueError, "kernel_size is .*at most 256 taps"),
        ({"stride": (0, 1)}, ValueError, "stride is .*two numbers of at least 1"),
        ({"dilation": (3, 3)}, ValueError, r"its height and width must be at least \[7, 7\]"),
        ({"bias": B[1:]}, ValueError, r"bias is \[9\]; it must be \[10\] or None"),
        ({"residual": X}, ValueError, r"residual is \[2, 6, 5, 5\]; it must be \[2, 10, 3, 3\] or None"),
        ({"bias": B.to("meta")}, ValueError, "bias is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(changed: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"input": X, "weight": W, "bias": B, "out_channels": 10, "kernel_size": (3, 3), **changed}
    with pytest.raises(error, match=f"sparse_conv2d: .*{message}"):
        sparse_conv2d(**arguments)


def test_mistakes_of_linear_are_explained() -> None:
    weight = pack_sparse(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"sparse_linear: input is \[\]; it must be \[\*, K\]"):
        sparse_linear(torch.zeros(()), weight, out_features=3)
    with pytest.raises(ValueError, match=r"residual is \[3\]; it must be \[2, 3\] or None"):
        sparse_linear(torch.zeros(2, 4), weight, None, torch.zeros(3), out_features=3)


@needs_native
def test_a_layer_without_gradients_explains_mistakes_too() -> None:
    with torch.no_grad(), pytest.raises(TypeError, match="input is torch.float64; it must be torch.float32"):
        SparseLinear.from_dense(linear())(torch.zeros(2, 300).double())


@pytest.mark.parametrize("block", [1, 4])
def test_few_rows_are_packed_again_when_a_state_is_loaded(block: int) -> None:
    saved = SparseLinear.from_dense(linear(), block=block)
    assert "few_rows" not in saved.state_dict()
    loaded = SparseLinear(300, 18, block=block)
    loaded.load_state_dict(saved.state_dict())
    if not leanmark_kernels.available():
        assert loaded.few_rows is None
    else:
        assert loaded.few_rows is not None and saved.few_rows is not None
        assert loaded.few_rows.equal(saved.few_rows)


@needs_native
@pytest.mark.parametrize("block", [1, 4])
@pytest.mark.parametrize("fill", [0, 1, 127, 255])
def test_foreign_few_rows_never_read_stray_memory(block: int, fill: int) -> None:
    weight = pack_sparse(pruned(40, 300), block)
    packed = pack_few_rows(weight, 40, 300)
    assert packed is not None
    arguments = (torch.ones(3, 300), *weight, None, None, 40, False)
    operator = torch.ops.leanmark.sparse_linear
    counts = packed[: 8 * 4].view(torch.int32)
    for first in (0, 8, len(packed) - 2 * int(counts[-2]) * (6 if block == 1 else 2)):
        changed = packed.clone()
        changed[first:] = fill
        changed[:32].view(torch.int32)[-2:] = counts[-2:]  # or the size would not fit
        assert operator(*arguments, changed).shape == (3, 40)
    for wrong in (packed[:-1], packed[:20], packed.float(), packed[None]):
        if leanmark_kernels.instruction_set() != "default":
            with pytest.raises(RuntimeError, match="sparse_linear: few_rows must be"):
                operator(*arguments, wrong)


@needs_native
@pytest.mark.parametrize(
    "weight",
    [
        W._replace(starts=torch.full_like(W.starts, 10**6)),
        W._replace(starts=torch.full_like(W.starts, -5)),
        W._replace(starts=W.starts.flip(0)),
        W._replace(indices=torch.full_like(W.indices, 255)),
    ],
)
def test_foreign_indices_never_read_stray_memory(weight: SparseWeight) -> None:
    output = sparse_conv2d(X, weight, out_channels=10, kernel_size=(3, 3))
    assert output.shape == (2, 10, 3, 3)


@needs_native
@pytest.mark.parametrize(
    "changed",
    [
        {0: X.double()},
        {0: X[0]},
        {1: W.values.half()},
        {1: W.values[:, 0]},
        {2: W.indices[1:]},
        {3: W.starts[1:]},
        {4: B[1:]},
        {5: X},
        {6: 9},
        {6: 0},
        {7: [3, 1, 1, 0, 0, 1, 1]},
        {7: [20, 20, 1, 1, 0, 0, 1, 1]},
        {7: [3, 3, 0, 1, 0, 0, 1, 1]},
        {7: [3, 3, 1, 1, -1, 0, 1, 1]},
        {7: [3, 3, 1, 1, 0, 0, 3, 3]},
    ],
)
def test_direct_calls_never_read_stray_memory(changed: dict[int, object]) -> None:
    arguments: list[object] = [X, *W, B, None, 10, [3, 3, 1, 1, 0, 0, 1, 1], True]
    for position, value in changed.items():
        arguments[position] = value
    with pytest.raises(RuntimeError, match="sparse_conv2d: "):
        torch.ops.leanmark.sparse_conv2d(*arguments)
