"""The probe of what the machine can do at most."""

import pytest
import torch

import leanmark_kernels
from leanmark_kernels import _native, ceilings

pytestmark = pytest.mark.skipif(not leanmark_kernels.available(), reason="needs the native operators")

LANES = {"default": 4, "avx2": 8, "avx512": 16, "avx512_vnni": 16}


def test_it_says_how_much_was_done() -> None:
    lanes = LANES[leanmark_kernels.instruction_set()]
    done = torch.ops.leanmark.multiply_add_ceiling(100)
    assert done == torch.get_num_threads() * 100 * 12 * lanes * 2
    assert torch.ops.leanmark.add_ceiling(100) == torch.get_num_threads() * 100 * 24
    for count in (0, 1, 1001):
        assert torch.ops.leanmark.read_ceiling(torch.ones(count)) == 4 * count
    with pytest.raises(RuntimeError, match="input must be float32 and contiguous"):
        torch.ops.leanmark.read_ceiling(torch.ones(4, 4).t())


def test_rates_are_those_of_the_threads_in_use() -> None:
    found = ceilings.measure(rounds=1, read_bytes=1 << 20)
    assert found.threads == torch.get_num_threads()
    assert found.flops_per_s > 0 and found.read_bytes_per_s > 0


def test_without_native_code_there_is_no_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_native, "why_unavailable", lambda: "it was not built")
    with pytest.raises(RuntimeError, match="ceilings need the native operators: it was not built"):
        ceilings.measure()
