"""The gradients of float32 operators, against those of torch's own layers in float64."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import leanmark_kernels as lk
from leanmark_kernels import depthwise_packing, packing, sparse_packing
from leanmark_kernels.convert import Recipe, convert
from leanmark_kernels.ops.inverted_residual import InvertedResidualWeights
from leanmark_kernels.winograd_forms import FORMS, Form

SHARE = 2e-5
"""Of the largest gradient: F(4x4, 3x3) in float32."""


def rand(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conv(kernel: int, channels: tuple[int, int] = (5, 18), **steps: Any) -> nn.Conv2d:
    torch.manual_seed(2)
    return nn.Conv2d(*channels, kernel, **steps)


def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(19, 18)


def chain() -> nn.Sequential:
    narrow, middle = (6, 18), (18, 18)
    parts = conv(1, narrow), conv(3, middle, padding=1, groups=18), conv(1, narrow[::-1])
    return nn.Sequential(parts[0], nn.ReLU6(), parts[1], nn.ReLU6(), parts[2])


def convolutions(chain: nn.Sequential) -> list[nn.Conv2d]:
    return [part for part in chain if isinstance(part, nn.Conv2d)]


def same_depthwise(conv: nn.Conv2d) -> nn.Module:
    return lk.DepthwiseConv2d.from_conv(conv, activation="relu")


def same_direct(conv: nn.Conv2d) -> nn.Module:
    return lk.DirectConv2d.from_conv(conv, activation="relu")


LAYERS: dict[str, tuple[nn.Module, Callable[[Any], nn.Module], tuple[int, ...]]] = {
    "fp32": (linear(), lambda one: lk.PackedLinear.from_linear(one, relu=True), (2, 3, 19)),
    "winograd 2": (
        conv(3, padding=1), lambda one: lk.WinogradConv2d.from_conv(one, tile=2, relu=True), (2, 5, 6, 7)
    ),
    "winograd as stored": (
        conv(3, padding=1),
        lambda one: lk.WinogradConv2d.from_conv(one, as_stored=True, relu=True),
        (2, 5, 6, 7),
    ),
    "winograd 4": (
        conv(3, padding=2), lambda one: lk.WinogradConv2d.from_conv(one, tile=4, relu=True), (2, 5, 6, 7)
    ),
    "sparse linear": (linear(), lambda one: lk.SparseLinear.from_dense(one, relu=True), (2, 3, 19)),
    "sparse conv": (
        conv(3, stride=2), lambda one: lk.SparseConv2d.from_dense(one, block=4, relu=True), (2, 5, 6, 7)
    ),
    "direct": (conv(3, stride=2, padding=1), same_direct, (2, 5, 6, 7)),
    "depthwise": (conv(3, (5, 5), stride=2, groups=5), same_depthwise, (2, 5, 6, 7)),
}  # fmt: skip


def gradient(of: Tensor | None) -> Tensor:
    assert of is not None and of.grad is not None
    return of.grad


def check(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None
    assert expected is not None
    exact = expected.detach().double()
    torch.testing.assert_close(actual.detach().double(), exact, rtol=0, atol=SHARE * float(exact.abs().max()))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_pass_the_gradient_on(name: str) -> None:
    dense, pack, shape = LAYERS[name]
    layer = pack(dense)
    input = rand(*shape).requires_grad_()
    exact = input.detach().double().requires_grad_()
    expected = copy.deepcopy(dense).double()(exact)
    residual = rand(*expected.shape, seed=4).requires_grad_() if layer.takes_residual else None
    exact_residual = None if residual is None else residual.detach().double().requires_grad_()
    expected = (expected if exact_residual is None else expected + exact_residual).relu()
    output = layer(input) if residual is None else layer(input, residual)
    with torch.no_grad():
        assert output.equal(layer(input) if residual is None else layer(input, residual))
    weights = rand(*expected.shape, seed=5)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    check(input.grad, exact.grad)
    if residual is not None:
        check(gradient(residual), gradient(exact_residual))


def test_an_inverted_residual_passes_the_gradient_on() -> None:
    dense = chain()
    layer = lk.InvertedResidual.from_convs(*convolutions(dense), residual=True)
    input = rand(2, 6, 5, 4).requires_grad_()
    exact = input.detach().double().requires_grad_()
    weights = rand(2, 6, 5, 4, seed=6)
    (layer(input) * weights).sum().backward()
    ((copy.deepcopy(dense).double()(exact) + exact) * weights).sum().backward()
    check(input.grad, exact.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8])
def test_frozen_rounded_weights_pass_the_gradient_on(dtype: torch.dtype) -> None:
    layer = lk.PackedLinear.from_linear(linear(), dtype=dtype)
    input = rand(3, 19).requires_grad_()
    layer(input).sum().backward()
    weight = packing.unpack_linear(layer.weight, 18, 19).double()
    weight = weight if layer.scale is None else weight * layer.scale[:, None]
    check(input.grad, weight.sum(0).expand(3, 19))


def test_packed_weights_have_a_gradient() -> None:
    dense, input = linear(), rand(3, 19)
    weight, bias = packing.pack_linear(dense.weight).requires_grad_(), dense.bias.detach().requires_grad_()
    lk.packed_linear(input, weight, None, bias, out_features=18).square().sum().backward()
    exact = copy.deepcopy(dense).double()
    exact(input.double()).square().sum().backward()
    check(packing.unpack_linear(gradient(weight), 18, 19), exact.weight.grad)
    check(bias.grad, exact.bias.grad)

    packed = sparse_packing.pack_sparse(dense.weight)
    values = packed.values.requires_grad_()
    lk.sparse_linear(
        input, packed._replace(values=values), dense.bias, out_features=18
    ).square().sum().backward()
    held = packed._replace(values=gradient(values))
    check(sparse_packing.unpack_sparse(held, 18, 19, 1)[..., 0], exact.weight.grad)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.kernel}/{form.stride} in {form.tile}")
def test_transformed_weights_have_a_gradient(form: Form) -> None:
    """Back through U = G w G^T it is that of the weights."""
    dense, input = conv(form.kernel, stride=form.stride), rand(2, 5, 9, 10)
    packed = packing.pack_winograd(dense.weight, form.tile, form.stride).requires_grad_()
    output = lk.winograd_conv2d(input, packed, dense.bias, out_channels=18, padding=0, stride=form.stride)
    output.square().sum().backward()
    exact = copy.deepcopy(dense).double()
    exact(input.double()).square().sum().backward()
    points = gradient(packed).double().transpose(2, 3).flatten(1, 2)[:, :18]
    through = torch.func.vjp(form.transformed, dense.weight.detach().double())[1]
    check(through(points)[0], exact.weight.grad)


def test_weights_as_they_are_stored_have_the_gradient_of_the_convolution() -> None:
    dense, input = conv(3), rand(2, 5, 9, 10)
    packed = packing.pack_winograd(dense.weight, 4, as_stored=True).requires_grad_()
    output = lk.winograd_conv2d(input, packed, dense.bias, out_channels=18, padding=0)
    output.square().sum().backward()
    exact = copy.deepcopy(dense).double()
    exact(input.double()).square().sum().backward()
    check(packing.unpack_winograd(gradient(packed), 18), exact.weight.grad)


def test_parts_of_a_block_have_a_gradient() -> None:
    dense = chain()
    expand, depthwise, project = convolutions(dense)
    assert expand.bias is not None
    packed = InvertedResidualWeights(
        packing.pack_linear(expand.weight.flatten(1)), expand.bias.detach().requires_grad_(),
        depthwise_packing.pack_depthwise(depthwise.weight).requires_grad_(), None,
        packing.pack_linear(project.weight.flatten(1)), None,
    )  # fmt: skip
    input = rand(2, 6, 5, 4)
    lk.inverted_residual(input, packed, out_channels=6).square().sum().backward()
    exact = copy.deepcopy(dense).double()
    expand, depthwise, project = convolutions(exact)
    depthwise.bias, project.bias = None, None
    exact(input.double()).square().sum().backward()
    check(depthwise_packing.unpack_depthwise(gradient(packed.depthwise)), depthwise.weight.grad)
    check(gradient(packed.expand_bias), gradient(expand.bias))
    assert input.grad is None


def test_an_adapter_beside_a_frozen_layer_is_trained() -> None:
    frozen = lk.PackedLinear.from_linear(linear(), dtype=torch.int8)
    adapter = nn.Linear(19, 19)
    target, input = rand(32, 18, seed=7), rand(32, 19, seed=8)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    errors = []
    for _ in range(40):
        error = (frozen(adapter(input)) - target).square().mean()
        errors.append(float(error.detach()))
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    assert errors[-1] < 0.8 * errors[0]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_it_has_the_same_gradient(backend: str) -> None:
    layer, input = lk.PackedLinear.from_linear(linear(), relu=True), rand(3, 19).requires_grad_()
    torch._dynamo.reset()
    torch.compile(layer, backend=backend)(input).sum().backward()
    compiled, input.grad = input.grad, None
    layer(input).sum().backward()
    check(compiled, input.grad)


@pytest.mark.parametrize("name", ["fp32", "winograd 4", "sparse conv"])
def test_derivatives_of_higher_order_and_by_function(name: str) -> None:
    dense, pack, shape = LAYERS[name]
    layer, exact = pack(dense), copy.deepcopy(dense).double()

    def size(output: Tensor) -> Tensor:
        return output.pow(3).sum()

    def squared_slope(model: Callable[[Tensor], Tensor], input: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(size(model(input)), input, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), input)[0]

    input = rand(*shape).requires_grad_()
    doubled = input.detach().double().requires_grad_()
    check(squared_slope(layer, input), squared_slope(lambda each: exact(each).relu(), doubled))
    by_function = torch.func.grad(lambda each: size(layer(each)))(input.detach())
    check(by_function, torch.autograd.grad(size(exact(doubled).relu()), doubled)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, at first use
@pytest.mark.parametrize("name", LAYERS)
def test_derivatives_in_forward_mode(name: str) -> None:
    """torch takes an operator without them for a constant, and says nothing."""
    dense, pack, shape = LAYERS[name]
    layer, exact = pack(dense), copy.deepcopy(dense).double()
    input, along = rand(*shape), rand(*shape, seed=11)
    slope = torch.func.jvp(layer, (input,), (along,))[1]
    check(slope, torch.func.jvp(lambda each: exact(each).relu(), (input.double(),), (along.double(),))[1])


def test_an_input_changed_in_place_is_found() -> None:
    leaf = rand(3, 19).requires_grad_()
    input = leaf * 2
    output = lk.PackedLinear.from_linear(linear())(input)
    input += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("name", LAYERS)
def test_an_output_may_be_changed_in_place(name: str) -> None:
    dense, pack, shape = LAYERS[name]
    layer, input = pack(dense), rand(*shape).requires_grad_()
    exact = input.detach().double().requires_grad_()
    nn.ReLU(inplace=True)(layer(input).sub_(0.25)).square().sum().backward()
    (copy.deepcopy(dense).double()(exact).relu() - 0.25).relu().square().sum().backward()
    check(input.grad, exact.grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, at first use
def test_who_rounds_its_input_has_no_gradient() -> None:
    torch.manual_seed(9)
    image, rows = rand(1, 5, 6, 6).requires_grad_(), rand(2, 32).requires_grad_()
    for layer, input in (
        (lk.W4A8Linear.from_linear(nn.Linear(32, 4)), rows),
        (lk.Int8Linear.from_linear(nn.Linear(32, 4)), rows),
        (lk.Int8Conv2d.from_conv(conv(1)), image),
        (lk.Int8WinogradConv2d.from_conv(conv(3)), image),
    ):
        with pytest.raises(NotImplementedError, match=r"has no gradient.*torch.no_grad"):
            layer(input).sum().backward()
        with pytest.raises(NotImplementedError, match=r"has no gradient.*torch.no_grad"):
            torch.func.jvp(layer, (input.detach(),), (input.detach(),))


def test_a_converted_model_has_no_gradient() -> None:
    """Some libraries' layers in it lose it without an error."""
    torch.manual_seed(10)
    model = nn.Sequential(nn.Linear(19, 8), nn.ReLU(), nn.Linear(8, 4)).eval()
    converted = convert(model, rand(2, 19), Recipe(cache=None, rounds=1))
    with pytest.raises(NotImplementedError, match=r"a converted model has no gradient.*torch.no_grad"):
        converted(rand(2, 19).requires_grad_()).sum().backward()
