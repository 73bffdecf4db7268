"""From a trained model to one whose layers are the fastest of this machine."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, fx, nn

from leanmark_kernels.convert import place
from leanmark_kernels.convert.attention import Attention
from leanmark_kernels.convert.choices import Choice, default_folder
from leanmark_kernels.convert.choosing import choose, relative_error
from leanmark_kernels.convert.fusion import Untraced, first_inputs, fuse
from leanmark_kernels.convert.rewriting import LeftAlone, rewrite
from leanmark_kernels.convert.rows import WEIGHTS
from leanmark_kernels.ops.registration import for_inference
from leanmark_kernels.packed_state import PackedModule
from leanmark_kernels.pooling_modules import MaxPool2d, MeanPool2d
from leanmark_kernels.weights import require_finite

Example = Tensor | tuple[Tensor, ...]

LARGEST_LOSS = 10.0
"""Times a layer's limit: what the whole model may be off by, and before layers are replaced, times fp32's."""

OWN_LAYERS = (PackedModule, MaxPool2d, MeanPool2d)
"""The types of all layers that candidates with an operator of ours build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to convert.

    ``weights`` is a key of ``WEIGHTS``; ``error`` replaces its limit. Candidates are timed in ``rounds``.
    ``cache`` is the folder of the timings: ``default_folder()``, another, or ``None`` for none.

    Raises ``ValueError`` for values that are out of range.
    """

    weights: str = "fp32"
    error: float | None = None
    rounds: int = 9
    cache: Path | None = field(default_factory=default_folder)

    def __post_init__(self) -> None:
        if self.weights not in WEIGHTS:
            raise ValueError(f"weights is {self.weights!r}; it must be one of {', '.join(WEIGHTS)}")
        if self.error is not None and not self.error > 0:
            raise ValueError(f"error is {self.error}; it must be above 0, or None")
        if self.rounds < 1:
            raise ValueError(f"rounds is {self.rounds}; it must be at least 1")
        if not isinstance(self.cache, Path | None):
            raise TypeError(f"cache is {self.cache!r}; it must be a pathlib.Path, or None")

    def limit(self, weight: Tensor) -> float:
        """The largest error of a layer of ours that replaces one with ``weight``, relative to its largest
        output, against float64."""
        if self.error is not None:
            return self.error
        return max(WEIGHTS[self.weights].error, place.rounding(weight))


class Converted(nn.Module):
    """A model for inference that was converted; ``choices`` say what became of each layer.

    ``error`` is that of the whole model on the example, the largest one over the largest output, against the
    original in float64. ``untraced`` are the parts in which nothing could be fused, ``left_alone`` those
    whose attention stays torch's.
    """

    def __init__(self, body: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.body = body
        self.recipe = recipe
        self.choices: tuple[Choice, ...] = ()
        self.untraced: tuple[Untraced, ...] = ()
        self.left_alone: tuple[LeftAlone, ...] = ()
        self.error = 0.0
        self.takes_any_layout = False

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, or of a model that was saved whole."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        _put_within_reach(self)

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the original's; images [N, C, H, W] go on in channels_last where a layer wants that.

        Raises ``TypeError`` where torch.fx traces it: what images are is not known then.
        """
        # a graph's own __call__ costs as much as a small layer, and there are no hooks for it to run
        body = self.body.forward if isinstance(self.body, fx.GraphModule) else self.body
        output: Tensor = body(*_laid_out(inputs, self.takes_any_layout))
        return for_inference("a converted model", output) if output.requires_grad else output

    def own_layers(self) -> list[nn.Module]:
        """The layers in it that are ours."""
        return [part for part in self.modules() if isinstance(part, OWN_LAYERS)]

    def train(self, mode: bool = True) -> Self:
        if mode:
            raise ValueError("a converted model is for inference: train the original, and convert it again")
        return super().train(mode)


def convert(model: nn.Module, example: Example, recipe: Recipe | None = None) -> Converted:
    """A copy of ``model`` for inference with every convolution and linear layer in its fastest form here.

    ``example`` is what ``model`` is called with, a tensor or several: its batch is the one that is timed, any
    other works. Batch norm is folded into the layers before it; additions, ReLU and bias are computed with
    them; images stay in channels_last. Each layer is timed, on the inputs that it gets from ``example`` and
    with the threads that torch has now, in all forms that its shape allows, and the fastest is taken, if it
    is one of torch's or its error against float64 is within the recipe's limit.

    The layers inside ``nn.MultiheadAttention`` and ``nn.Transformer``, its encoder and its decoder are among
    them: these are rewritten first, so that they call the layers whose weights torch's own code reads. Where
    that would change what torch computes in inference, they stay torch's, and ``left_alone`` says why.

    On an NVIDIA GPU the forms are those of :mod:`leanmark_kernels.triton`, in the dtype of the model, which
    is best float16 or bfloat16; they are timed by the GPU's own clock, so replay the result as a CUDA graph
    where its kernels are short. ``w4`` is only there, ``w16`` and ``w4a8`` only on processors.

    Raises ``TypeError`` for anything else than a module and tensors, and for weights that are not in float32
    or, on a GPU, 16 bits; ``ValueError`` for a model in training mode, even in part, with hooks, converted
    already, on several devices or one without such forms, or with NaN in its weights or ``example``, and for
    one that no longer computes the same when converted or that cannot take images in channels_last.
    """
    if not isinstance(recipe, Recipe | None):
        raise TypeError(f"convert: recipe is a {type(recipe).__name__}; it must be a Recipe, or None")
    recipe = recipe or Recipe()
    inputs = _checked(model, example, recipe)
    with torch.no_grad():
        exact = _exact(model, inputs)
        found = _fused(model, recipe, inputs, exact)
        found.choices = choose(found, _copies(inputs), recipe)
        found.takes_any_layout = _takes_any_layout(found.body, _copies(inputs))
        _put_within_reach(found)
        found.error = relative_error(found(*_copies(inputs)), exact)
    _require_same(model, found.error, max(map(recipe.limit, (*model.parameters(), *inputs))))
    return found


def _fused(model: nn.Module, recipe: Recipe, inputs: tuple[Tensor, ...], exact: Tensor) -> Converted:
    """A copy of ``model`` with its layers in blocks, those of its attention too if its code allows that."""
    rewritten, left_alone = rewrite(copy.deepcopy(model), _copies(inputs))
    attends = any(isinstance(part, Attention) for part in rewritten.modules())
    try:
        found = _in_blocks(rewritten, recipe, inputs, exact)
    except (AttributeError, TypeError, ValueError) as error:
        if not attends:
            raise
        left_alone = (LeftAlone(type(model).__name__, str(error).removeprefix("convert: ")),)
        found = _in_blocks(copy.deepcopy(model), recipe, inputs, exact)
    found.left_alone = left_alone
    return found


def _in_blocks(model: nn.Module, recipe: Recipe, inputs: tuple[Tensor, ...], exact: Tensor) -> Converted:
    """``model``, which is changed, with its layers in blocks that are still torch's."""
    rounding = max(map(place.rounding, (*model.parameters(), *inputs)))
    untraced: list[Untraced] = []
    body = fuse(model, "", first_inputs(model, _copies(inputs)), untraced)
    found = Converted(body, recipe).eval()
    found.untraced = tuple(untraced)
    # a recipe's own limit may be so wide that a model fused wrongly would pass it
    _require_same(model, relative_error(_first_output(found, inputs), exact), rounding)
    return found


def _put_within_reach(model: nn.Module) -> None:
    """Every part into the attributes of what it is part of, where Python looks before it asks ``nn.Module``.

    That takes 0.7 µs an answer, and a graph needs three or four to find a layer: as long as a layer's whole
    call takes. A part that is assigned later takes the place of both.
    """
    for part in model.modules():
        part.__dict__.update(part._modules)


def _require_same(model: nn.Module, error: float, limit: float) -> None:
    if not error <= LARGEST_LOSS * limit:
        raise ValueError(
            f"convert: {type(model).__name__} computes something else when converted: its outputs are off by "
            f"{error:.2g} of the largest. Does it change tensors in place that it uses again?"
        )


def _first_output(found: Converted, inputs: tuple[Tensor, ...]) -> Tensor:
    """With all layers still torch's; code that was not traced may fail on images in channels_last, or read
    what a layer has and the block around it has not."""
    try:
        output: Tensor = found(*_copies(inputs))
    except (RuntimeError, AttributeError) as error:
        if not found.untraced:
            raise
        modules = ", ".join(one.module for one in found.untraced)
        reads = isinstance(error, AttributeError)
        why = "reads from a layer" if reads else "fails on images in channels_last"
        advice = "Call the layer instead" if reads else "Use flatten or reshape in it where it uses view"
        raise ValueError(
            f"convert: {modules} cannot be traced, and its code {why}: "
            f"{str(error).partition(chr(10))[0].rstrip('.')}. {advice}."
        ) from error
    return output


def _copies(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """For every use its own, since a model may change its input in place."""
    return tuple(each.clone() for each in inputs)


def _exact(model: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    doubled = (each.double() if each.is_floating_point() else each for each in _copies(inputs))
    output = copy.deepcopy(model).double()(*doubled)
    if not isinstance(output, Tensor):
        raise TypeError(f"convert: model returns a {type(output).__name__}; it must return one tensor")
    return output


def _takes_any_layout(body: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Whether every layer that is called with an input itself does, and there is one."""
    called = first_inputs(body, inputs).items()
    readers = [
        module
        for module, arguments in called
        if any(each is input for each in arguments for input in inputs) and not list(module.children())
    ]
    return bool(readers) and all(getattr(one, "takes_any_layout", False) for one in readers)


def _laid_out(inputs: tuple[Tensor, ...], as_given: bool) -> tuple[Tensor, ...]:
    """Images in channels_last, unless they go on ``as_given``."""
    images = torch.channels_last
    try:
        return tuple(x if x.dim() != 4 or as_given else x.contiguous(memory_format=images) for x in inputs)
    except fx.proxy.TraceError as error:
        raise TypeError("a converted model cannot be traced by torch.fx; its .body can") from error


def _require_one_place(model: nn.Module, inputs: tuple[Tensor, ...], weights: str) -> None:
    held = itertools.chain(model.named_parameters(), model.named_buffers())
    given = ((f"example {number}", each) for number, each in enumerate(inputs))
    first, device = "", torch.device("cpu")
    for name, tensor in itertools.chain(given, held):
        first, device = (first, device) if first else (name, tensor.device)
        if tensor.device != device:
            raise ValueError(
                f"convert: '{first}' is on {device} and '{name}' on {tensor.device}; all must be on one"
            )
    reason = place.why_not(device, weights)
    if reason is not None:
        raise ValueError(f"convert: '{first}' is on {device}, and {reason}")


def _require_original(name: str, part: nn.Module) -> None:
    if part.training:
        raise ValueError(f"convert: {name} is in training mode; call model.eval() first")
    if part._forward_hooks or part._forward_pre_hooks:
        raise ValueError(f"convert: {name} has forward hooks, which would be lost; remove them first")
    if isinstance(part, Converted | PackedModule):
        raise ValueError(
            f"convert: {name} is a {type(part).__name__}, so converted already; convert the original, whose "
            "weights tell how much each form is off"
        )


def _checked(model: object, example: object, recipe: Recipe) -> tuple[Tensor, ...]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model is a {type(model).__name__}; it must be a torch.nn.Module")
    inputs = example if isinstance(example, tuple) else (example,)
    for each in inputs:
        if not isinstance(each, Tensor):
            raise TypeError(f"convert: example holds a {type(each).__name__}; it must be tensors")
    for name, part in model.named_modules():
        _require_original(f"'{name}'" if name else "model", part)
    _require_one_place(model, inputs, recipe.weights)
    for name, parameter in model.named_parameters():
        legal = place.dtypes(parameter.device)
        if parameter.is_floating_point() and parameter.dtype not in legal:
            raise TypeError(
                f"convert: '{name}' is {parameter.dtype}; it must be {' or '.join(map(str, legal))}: call "
                "model.float() first"
            )
        require_finite("convert", **{f"'{name}'": parameter})
    require_finite("convert", **{f"example {number}": each for number, each in enumerate(inputs)})
    return cast(tuple[Tensor, ...], inputs)
