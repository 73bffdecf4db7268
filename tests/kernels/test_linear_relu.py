"""``leanmark::linear_relu`` against its reference and against float64."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import leanmark_kernels
from leanmark_kernels import linear_relu, reference

AWKWARD = [
    # leading dimensions, K, N
    ((0,), 5, 3),
    ((2, 0, 3), 5, 3),
    ((), 7, 4),
    ((1,), 1, 1),
    ((3,), 0, 4),
    ((3,), 4, 0),
    ((1,), 17, 13),
    ((5,), 1, 9),
    ((4,), 255, 31),
    ((7,), 257, 33),
    ((32,), 256, 5),
    ((33,), 300, 70),
    ((2, 3, 5), 64, 10),
]


def tensors(lead: tuple[int, ...], depth: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(*lead, depth, generator=generator),
        torch.randn(columns, depth, generator=generator),
        torch.randn(columns, generator=generator),
    )


def assert_right(input: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Within the probable rounding error of sums in any order, sqrt(K) u |x|·|w| (Higham and Mary, 2019)."""
    exact = input.double(), weight.double(), None if bias is None else bias.double()
    size = F.linear(exact[0].abs(), exact[1].abs(), None if bias is None else bias.double().abs())
    tolerance = 2.0**-23 * (2 + weight.shape[1] ** 0.5) * size
    actual = linear_relu(input, weight, bias)
    assert actual.shape == (*input.shape[:-1], weight.shape[0])
    for expected in (reference.linear_relu(*exact), reference.linear_relu(input, weight, bias)):
        assert ((actual - expected).abs() <= tolerance).all()


def random_shapes(count: int) -> Iterator[tuple[tuple[int, ...], int, int]]:
    draw = random.Random(20)
    for _ in range(count):
        lead = tuple(draw.randint(1, 6) for _ in range(draw.randint(0, 3)))
        yield lead, draw.choice([draw.randint(1, 40), draw.randint(200, 600)]), draw.randint(1, 90)


@pytest.mark.parametrize(("lead", "depth", "columns"), AWKWARD)
@pytest.mark.parametrize("with_bias", [True, False])
def test_awkward_shapes(lead: tuple[int, ...], depth: int, columns: int, with_bias: bool) -> None:
    input, weight, bias = tensors(lead, depth, columns, seed=1)
    assert_right(input, weight, bias if with_bias else None)


def test_random_shapes() -> None:
    for seed, shape in enumerate(random_shapes(240)):
        input, weight, bias = tensors(*shape, seed=seed)
        assert_right(input, weight, bias if seed % 3 else None)


def test_strided_arguments() -> None:
    input, weight, bias = tensors((12,), 600, 40, seed=2)
    assert_right(input[::2, ::2], weight.t().contiguous().t()[:, :300], bias.flip(0)[::1])
    assert_right(input.t()[:40, :].t(), weight[:, 5:45], bias)


def test_known_values() -> None:
    output = linear_relu(
        torch.tensor([[1.0, 2.0], [-3.0, 1.0]]),
        torch.tensor([[1.0, 1.0], [2.0, -1.0]]),
        torch.tensor([0.5, 0.0]),
    )
    assert output.tolist() == [[3.5, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("rows", [1, 40])
def test_nan_and_infinity_pass_as_in_torch(rows: int) -> None:
    input, weight, bias = tensors((rows,), 20, 9, seed=3)
    bias[:3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    output = linear_relu(input, weight, bias)
    assert output[:, 0].isnan().all()
    assert output[:, 1].isposinf().all()
    assert (output[:, 2] == 0).all()


@pytest.mark.parametrize("lead", [(5,), (2, 3), ()])
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_equal_those_of_the_reference(lead: tuple[int, ...], with_bias: bool) -> None:
    arguments = [t.requires_grad_() for t in tensors(lead, 30, 11, seed=4)[: 3 if with_bias else 2]]
    output = linear_relu(*arguments)
    grad = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    actual = torch.autograd.grad(output, arguments, grad)
    expected = torch.autograd.grad(reference.linear_relu(*arguments), arguments, grad)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_gradients_of_nan_and_infinity_are_those_of_the_reference() -> None:
    input, weight, bias = tensors((2,), 6, 4, seed=9)
    bias.copy_(torch.tensor([float("nan"), float("inf"), -100.0, 100.0])).requires_grad_()
    grad = torch.tensor([[1.0, 1.0, float("inf"), 2.0], [1.0, 1.0, float("nan"), 3.0]])
    (actual,) = torch.autograd.grad(linear_relu(input, weight, bias), bias, grad)
    (expected,) = torch.autograd.grad(reference.linear_relu(input, weight, bias), bias, grad)
    assert actual.tolist() == expected.tolist() == [2.0, 2.0, 0.0, 5.0]


def test_gradient_only_where_it_is_asked_for() -> None:
    input, weight, bias = tensors((5,), 30, 11, seed=6)
    linear_relu(input, weight.requires_grad_(), bias).sum().backward()
    assert weight.grad is not None
    assert input.grad is None
    assert bias.grad is None


@pytest.mark.parametrize("rows", [3, 50])
@pytest.mark.parametrize("with_bias", [True, False])
def test_registration_is_complete(rows: int, with_bias: bool) -> None:
    arguments = [t.requires_grad_() for t in tensors((rows,), 12, 7, seed=7)]
    torch.library.opcheck(
        torch.ops.leanmark.linear_relu.default, (*arguments[:2], arguments[2] if with_bias else None)
    )


def test_traced_whole() -> None:
    input, weight, bias = tensors((2, 3), 12, 7, seed=8)
    exported = torch.export.export(_Layer(weight, bias), (input,))
    assert [n.target for n in exported.graph.nodes if n.op == "call_function"] == [
        torch.ops.leanmark.linear_relu.default
    ]
    assert exported.module()(input).equal(linear_relu(input, weight, bias))


class _Layer(torch.nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, input: Tensor) -> Tensor:
        return linear_relu(input, self.weight, self.bias)


X, W, B = torch.zeros(2, 4), torch.zeros(3, 4), torch.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((X.double(), W, B), TypeError, "input is torch.float64; it must be torch.float32"),
        ((X, W.half(), B), TypeError, "weight is torch.float16; it must be torch.float32"),
        ((X, W, B.int()), TypeError, "bias is torch.int32; it must be torch.float32"),
        ((X, W[0], B), ValueError, r"weight is \[4\]; it must be \[N, K\]"),
        ((X[:, :3], W, B), ValueError, r"input is \[2, 3\]; it must be \[\*, 4\], since weight is \[3, 4\]"),
        ((X[0, 0], W, B), ValueError, r"input is \[\]; it must be \[\*, 4\]"),
        ((X, W, B[:2]), ValueError, r"bias is \[2\]; it must be \[3\] or None"),
        ((X, W, W), ValueError, r"bias is \[3, 4\]; it must be \[3\] or None"),
        ((X, W.to("meta"), B), ValueError, "weight is on meta; it must be on cpu, where input is"),
    ],
)
def test_mistakes_are_explained(arguments: tuple[Tensor, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        linear_relu(*arguments)


@pytest.mark.skipif(not leanmark_kernels.available(), reason=f"{leanmark_kernels.why_unavailable()}")
@pytest.mark.parametrize(
    "arguments", [(X.double(), W, B), (X, W[0], B), (X[:, :3], W, B), (X[0, 0], W, B), (X, W, B[:2])]
)
def test_direct_calls_never_read_stray_memory(arguments: tuple[Tensor, ...]) -> None:
    with pytest.raises(RuntimeError, match="linear_relu: "):
        torch.ops.leanmark.linear_relu(*arguments)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_on_cuda_it_is_the_reference() -> None:
    arguments = [tensor.cuda() for tensor in tensors((3, 5), 20, 9, seed=10)]
    assert linear_relu(*arguments).equal(reference.linear_relu(*arguments))


PROGRAM = """
import warnings, torch, leanmark_kernels as lk
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    outputs = [lk.linear_relu(torch.ones(2, 3), torch.ones(4, 3)).unique().item() for _ in range(3)]
print(lk.available(), lk.instruction_set(), outputs, lk.why_unavailable(), sep="|")
print(torch.ops.leanmark.linear_relu.default._schema)
print(*(w.message for w in seen), sep="|")
"""


def test_switched_off_it_works_and_says_so_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "LEANMARK_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    state, schema, said = done.stdout.splitlines()
    assert state == "False|reference|[3.0, 3.0, 3.0]|LEANMARK_NATIVE=0 is set"
    assert schema == str(torch.ops.leanmark.linear_relu.default._schema)
    assert said.count("slower reference") == 1
    assert "pip install --no-build-isolation -e ." in said
