"""The forms of Winograd's minimal filtering that there are operators for, each as its matrices.

Along one axis, an output tile is ``A^T (G w · B^T d)`` of the weights w and the input pixels d under it
(Lavin and Gray, CVPR 2016, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True)
class Form:
    """A convolution of ``kernel`` and ``stride`` in tiles of ``tile`` x ``tile`` outputs.

    ``weights`` is G, ``input`` B^T and ``output`` A^T. ``meets`` gives for every point the row of G that it
    is multiplied by. With ``squares`` all this is done on the four pixels of each square of 2x2 as channels,
    where stride 2 is stride 1 and the kernel has half the size.
    """

    kernel: int
    stride: int
    tile: int
    weights: Matrix
    input: Matrix
    output: Matrix
    meets: tuple[int, ...]
    squares: bool = False

    @property
    def pixels(self) -> int:
        """How many are taken together as channels."""
        return 4 if self.squares else 1

    def transformed(self, weight: Tensor) -> Tensor:
        """``weight`` [O, C, kernel, kernel] as [rows of G squared, O, C], with ``squares`` 4 C."""
        g = weight.new_tensor(self.weights)
        if self.squares:
            weight = _squares(F.pad(weight, (0, 1, 0, 1)))
        return torch.einsum("ai,ocij,bj->aboc", g, weight, g).flatten(0, 1)

    def size(self, size: int, padding: int) -> int:
        """Of the output, along one axis."""
        return (size + 2 * padding - self.kernel) // self.stride + 1

    def tiles(self, input: Tensor, padding: int) -> Tensor:
        """Pixels under each tile of ``input`` [N, C, H, W]: [N, C, tiles down, across, points, points]."""
        points, step = len(self.input), self.tile * (1 if self.squares else self.stride)
        needed = []
        for size in input.shape[2:]:
            tiles = -(-self.size(size, padding) // self.tile)
            pixels = (tiles - 1) * step + points
            needed.append((2 * pixels if self.squares else pixels) - size - padding)
        padded = F.pad(input, (padding, needed[1], padding, needed[0]))
        squares = _squares(padded) if self.squares else padded
        return squares.unfold(2, points, step).unfold(3, points, step)


def _squares(images: Tensor) -> Tensor:
    """[N, C, 2 H, 2 W] as [N, 4 C, H, W], the channels by row and column of the square first."""
    split: Tensor = images.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
    return split.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)


def _points_of_f4(taps: int) -> Matrix:
    """G at the points 0, 1, -1, 2, -2 and infinity."""
    scaled = ((0, 4), (1, -6), (-1, -6), (2, 24), (-2, 24))
    rows = [[point**tap / scale for tap in range(taps)] for point, scale in scaled]
    return (*rows, [0.0] * (taps - 1) + [1.0])


_INPUT_OF_F4 = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)

FORMS = (
    Form(
        kernel=3,
        stride=1,
        tile=2,
        weights=((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
        output=((1, 1, 1, 0), (0, 1, -1, -1)),
        meets=(0, 1, 2, 3),
    ),
    Form(
        kernel=3,
        stride=1,
        tile=4,
        weights=_points_of_f4(3),
        input=_INPUT_OF_F4,
        output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
        meets=(0, 1, 2, 3, 4, 5),
    ),
    # F(2, 2) for the outer taps, which meet every second pixel; the middle one is multiplied as it is
    Form(
        kernel=3,
        stride=2,
        tile=2,
        weights=((1, 0, 0), (1, 0, 1), (0, 0, 1), (0, 1, 0)),
        input=((1, 0, -1, 0, 0), (0, 0, 1, 0, 0), (0, 0, -1, 0, 1), (0, 1, 0, 0, 0), (0, 0, 0, 1, 0)),
        output=((1, 1, 0, 1, 0), (0, 1, 1, 0, 1)),
        meets=(0, 1, 2, 3, 3),
    ),
    Form(
        kernel=7,
        stride=2,
        tile=3,
        weights=_points_of_f4(4),
        input=_INPUT_OF_F4,
        output=((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 1)),
        meets=(0, 1, 2, 3, 4, 5),
        squares=True,
    ),
)


def form_for(kernel: int, stride: int, tile: int) -> Form | None:
    """The form with these, if there is one."""
    found = (form for form in FORMS if (form.kernel, form.stride, form.tile) == (kernel, stride, tile))
    return next(found, None)


AS_STORED = 5
"""Dimensions of packed weights that are not transformed, for F(4x4, 3x3): [panels, C, 3, 3, 16]."""


def form_of(shape: Sequence[int], stride: int) -> Form | None:
    """The form whose packed weights have that ``shape``."""
    if len(shape) == AS_STORED:
        return form_for(3, stride, 4) if list(shape[2:4]) == [3, 3] else None
    found = (form for form in FORMS if form.stride == stride and len(form.weights) ** 2 == shape[0])
    return next(found, None) if len(shape) == 4 else None
