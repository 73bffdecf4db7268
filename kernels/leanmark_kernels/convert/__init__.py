"""Replaces the layers of a trained model by the fastest that this machine has, and says what it chose."""

from leanmark_kernels.convert.choices import Choice, Timing
from leanmark_kernels.convert.conversion import Converted, Recipe, convert
from leanmark_kernels.convert.fusion import Untraced
from leanmark_kernels.convert.rewriting import LeftAlone
from leanmark_kernels.convert.rows import WEIGHTS

__all__ = ["WEIGHTS", "Choice", "Converted", "LeftAlone", "Recipe", "Timing", "Untraced", "convert"]
