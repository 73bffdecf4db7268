"""Convolutions and linear layers by the libraries inside torch, in the forms that inference allows."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


def row_major(layer: nn.Module) -> nn.Module:
    """torch's own layer with channels first: two changes of layout where its neighbours differ."""
    return RowMajor(copy.deepcopy(layer))


def channels_last(layer: nn.Module) -> nn.Module:
    copied = copy.deepcopy(layer)
    copied.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return copied


class RowMajor(nn.Module):
    """[N, C, H, W] contiguous inside, channels_last outside."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self.layer(input.contiguous())
        return output.contiguous(memory_format=torch.channels_last)


class _Prepacked(nn.Module):
    """Keeps the weight as it was for saving, and oneDNN's form of it, made when first needed, beside it."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d | nn.Linear, activation: str | None, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.relu, self.shape = activation == "relu", shape
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())
        self._packed: Tensor | None = None

    def packed(self) -> Tensor:
        if self._packed is None:
            self._packed = self._pack()
        return self._packed

    def _pack(self) -> Tensor:
        raise NotImplementedError

    def _load_from_state_dict(self, *arguments: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}  # an opaque tensor, which cannot be saved

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}, relu={self.relu}"


class OneDnnConv2d(_Prepacked):
    """oneDNN's convolution with weights packed for inputs of ``shape``, residual and ReLU inside."""

    def __init__(self, conv: nn.Conv2d, activation: str | None, shape: tuple[int, ...]) -> None:
        super().__init__(conv, activation, shape)
        assert not isinstance(conv.padding, str)
        self._options = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)

    def _pack(self) -> Tensor:
        packed: Tensor = torch._C._nn.mkldnn_reorder_conv2d_weight(  # type: ignore[call-arg]
            self.weight.to_mkldnn(), *self._options, list(self.shape)
        )
        return packed

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        after = "relu" if self.relu else "none"
        if residual is None:
            return self._alone(input, after)
        if residual.shape[2:].numel() == 1:  # in torch 2.10 and 2.11 oneDNN cannot add to them
            apart = self._alone(input, "none").add_(residual)
            return apart.relu_() if self.relu else apart
        both: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            input, residual, self.packed(), self.bias, *self._options,
            "add", 1.0, after if self.relu else None, [], "",
        )  # fmt: skip
        return both

    def _alone(self, input: Tensor, after: str) -> Tensor:
        output: Tensor = torch.ops.mkldnn._convolution_pointwise(
            input, self.packed(), self.bias, *self._options, after, [], ""
        )
        return output


class OneDnnLinear(_Prepacked):
    """oneDNN's linear layer with weights packed for as many rows as ``shape`` has."""

    def _pack(self) -> Tensor:
        rows = torch.Size(self.shape[:-1]).numel()
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(self.weight, rows)
        return packed

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.packed(), self.bias, "relu" if self.relu else "none", [], ""
        )
        return output
