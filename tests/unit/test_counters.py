"""Counts against numbers worked out by hand: 4 bytes a float, two FLOPs a multiply-accumulate."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from leanmark.machine.counters import METRICS, Counters
from leanmark.models.operators import count, counted

_NOTHING = {
    "flops": 0,
    "operators": 0,
    "read_bytes": 0,
    "written_bytes": 0,
    "allocations": 0,
    "allocated_bytes": 0,
}


def _inference(module: nn.Module, inputs: Tensor) -> Callable[[], None]:
    def step() -> None:
        with torch.inference_mode():
            module(inputs)

    return step


def _perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def test_a_perceptron_is_counted_as_by_hand() -> None:
    batch = 2
    wide, narrow = 4 * batch * 32, 4 * batch * 4
    first = 4 * (batch * 16 + 16 * 32 + 32)
    last = 4 * (batch * 32 + 32 * 4 + 4)
    found = count(_inference(_perceptron(), torch.rand(batch, 16)))
    assert found == Counters(
        flops=2 * batch * (16 * 32 + 32 * 4),
        operators=3,
        read_bytes=first + wide + last,
        written_bytes=wide + wide + narrow,
        allocations=3,
        allocated_bytes=wide + wide + narrow,
    )


def test_a_convolution_is_counted_as_by_hand() -> None:
    outputs = 8 * 8 * 8
    found = count(_inference(nn.Conv2d(4, 8, 3), torch.rand(1, 4, 10, 10)))
    assert found == Counters(
        flops=2 * outputs * 4 * 9,
        operators=1,
        read_bytes=4 * (4 * 10 * 10 + 8 * 4 * 9 + 8),
        written_bytes=4 * outputs,
        allocations=1,
        allocated_bytes=4 * outputs,
    )


def test_views_are_free_and_what_happens_in_place_allocates_nothing() -> None:
    values = torch.ones(4, 6)

    def step() -> None:
        values.t().reshape(8, 3)[2:].add_(1.0)  # reshape copies here, the rest does not
        values.view(24).mul_(2.0)

    found = count(step)
    assert (found.operators, found.allocations, found.allocated_bytes) == (3, 1, 96)
    assert (found.read_bytes, found.written_bytes) == (96 + 72 + 96, 96 + 72 + 96)


def test_dense_layers_and_convolutions_are_counted_as_torch_counts_them() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, groups=1), nn.Conv2d(8, 8, 3, groups=4), nn.Flatten(), nn.Linear(288, 5)
    )
    inputs = torch.rand(2, 3, 10, 10)
    with FlopCounterMode(display=False) as torchs:
        module(inputs).sum().backward()
    found = count(lambda: module(inputs).sum().backward())
    assert found.flops == torchs.get_total_flops() > 0


def test_a_transposed_convolution_is_counted_as_by_hand() -> None:
    module, inputs = nn.ConvTranspose2d(4, 8, 3, stride=2), torch.rand(2, 4, 5, 5)
    assert count(_inference(module, inputs)).flops == 2 * 2 * (5 * 5 * 4) * (8 * 3 * 3)


def test_flops_that_nobody_knows_are_not_counted_as_none() -> None:
    left, right = torch.ones(32, 32, dtype=torch.int8), torch.ones(32, 32, dtype=torch.int8)
    found = counted(lambda: torch._int_mm(left, right))
    assert "flops" not in found.counts
    assert found.missing == {"flops": "nobody knows those of aten._int_mm"}
    assert (found.counts["operator_calls"], found.counts["written_bytes"]) == (1, 4 * 32 * 32)
    assert count(lambda: torch._int_mm(left, right)).flops is None


def test_a_backend_counts_by_the_names_of_records() -> None:
    batch, module = 2, _perceptron()
    found = counted(_inference(module, torch.rand(batch, 16)))
    assert set(found.counts) == set(METRICS) - {"instructions"}
    assert (found.counts["flops"], found.counts["operator_calls"]) == (2 * batch * (16 * 32 + 32 * 4), 3)
    assert found.missing == {}


def test_a_training_step_is_counted_the_same_every_time() -> None:
    batch, module = 2, _perceptron()
    inputs, targets = torch.rand(batch, 16), torch.tensor([0, 3])
    optimizer = torch.optim.Adam(module.parameters())

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimizer.step()

    first, second = count(step), count(step)
    assert first == second
    # forward, gradients of the weights, gradients of the inputs of all but the first layer
    assert first.flops == 2 * batch * (2 * (16 * 32 + 32 * 4) + 32 * 4)


def test_the_backward_pass_of_a_recurrent_layer_is_twice_the_forward_pass() -> None:
    module, inputs = nn.LSTM(8, 16, batch_first=True), torch.rand(2, 5, 8)
    forward = 2 * 2 * 5 * 4 * 16 * (8 + 16)
    assert count(_inference(module, inputs)).flops == forward
    assert count(lambda: module(inputs)[0].sum().backward()).flops == 3 * forward


def test_the_backward_pass_of_fused_attention_computes_the_scores_again() -> None:
    heads, tokens, width = 2, 8, 16
    query = torch.rand(1, heads, tokens, width, requires_grad=True)
    product = 2 * heads * tokens * tokens * width

    def step() -> None:
        nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    assert count(step).flops == 2 * product + 5 * product


def test_autocast_moves_half_the_bytes_and_pays_for_the_casts() -> None:
    module, inputs = nn.Linear(64, 64, bias=False), torch.rand(1, 64)

    def step() -> None:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            module(inputs)

    plain, cast = count(_inference(module, inputs)), count(step)
    assert cast.flops == plain.flops == 2 * 64 * 64
    values = 64 * 64 + 64
    assert (plain.read_bytes, plain.written_bytes) == (4 * values, 4 * 64)
    assert (cast.read_bytes, cast.written_bytes) == ((4 + 2) * values, 2 * values + 2 * 64)
    assert cast.operators == plain.operators + 2


def test_counters_are_plain_numbers() -> None:
    found = count(_inference(_perceptron(), torch.rand(1, 16)))
    assert Counters(**json.loads(json.dumps(asdict(found)))) == found


def test_a_count_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"Counters\.flops must not be negative, not -1"):
        Counters(**{**_NOTHING, "flops": -1})


def test_counting_shows_that_a_smaller_model_does_less() -> None:
    inputs = torch.rand(1, 64)
    before = count(_inference(nn.Linear(64, 64), inputs))
    after = count(_inference(nn.Linear(64, 32), inputs))
    assert after.flops is not None
    assert (before.flops, before.written_bytes) == (2 * after.flops, 2 * after.written_bytes)
    assert (before.read_bytes, after.read_bytes) == (4 * (64 + 64 * 64 + 64), 4 * (64 + 32 * 64 + 32))
    assert before.operators == after.operators
