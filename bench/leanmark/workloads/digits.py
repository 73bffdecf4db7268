"""The handwritten digits that come with scikit-learn: 1797 real images of 8x8 pixels, 10 classes.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

from leanmark.workloads.base import Dataset, Split

CLASSES = 10

_TEST_COUNT = 540
_SPLIT_SEED = 0
_BRIGHTEST = 16.0


@cache
def images() -> Dataset:
    """Inputs [N, 1, 8, 8] float32 in 0..1: 1257 for training, 540 for testing, stratified by class."""
    rows = rows_of_pixels()
    return Dataset(train=_as_images(rows.train), test=_as_images(rows.test))


@cache
def rows_of_pixels() -> Dataset:
    """The same split as sequences of rows: inputs [N, 8, 8]."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=_TEST_COUNT, random_state=_SPLIT_SEED, stratify=labels
    )
    inputs = torch.from_numpy(pixels / _BRIGHTEST).float().reshape(-1, 8, 8)
    targets = torch.from_numpy(labels).to(torch.int64)
    return Dataset(
        train=Split(inputs=inputs[train], targets=targets[train]),
        test=Split(inputs=inputs[test], targets=targets[test]),
    )


def _as_images(split: Split) -> Split:
    return Split(inputs=split.inputs.unsqueeze(1), targets=split.targets)
