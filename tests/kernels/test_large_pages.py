"""Weights in large pages: the same numbers, where a large page begins, also in copies and saved layers."""

import copy
import io
import mmap

import pytest
import torch
from torch import nn

from leanmark_kernels import PackedLinear
from leanmark_kernels.large_pages import SIZE, in_large_pages

needs_pages = pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="this system has no large pages")


@needs_pages
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_numbers_and_shape_are_kept(dtype: torch.dtype) -> None:
    count = SIZE // torch.empty(0, dtype=dtype).element_size()
    tensor = torch.arange(count).to(dtype).view(4, -1).t()
    copied = in_large_pages(tensor)
    assert copied.equal(tensor)
    assert copied.dtype == dtype
    assert copied.is_contiguous()
    assert copied.data_ptr() % SIZE == 0


def test_small_ones_stay_where_they_are() -> None:
    tensor = torch.ones(SIZE // 4 - 1)
    assert in_large_pages(tensor) is tensor


def test_a_kernel_without_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    class Memory(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Memory)
    tensor = torch.ones(SIZE)
    assert in_large_pages(tensor) is tensor


@needs_pages
def test_layers_have_them_in_copies_and_when_loaded() -> None:
    layer = PackedLinear.from_linear(nn.Linear(1024, 512))
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    for each in (layer, copy.deepcopy(layer), loaded):
        assert each.weight.data_ptr() % SIZE == 0
        assert each.weight.equal(layer.weight)
        assert list(each.state_dict()) == list(layer.state_dict())
        assert each.weight.untyped_storage().nbytes() == each.weight.nbytes
