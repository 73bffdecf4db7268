from __future__ import annotations

import pytest

from leanmark import catalogue, registry
from leanmark.errors import UnknownName, UsageError
from leanmark.registry import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_leads_to_something(kind: Kind) -> None:
    for name in registry.rows(kind):
        assert callable(registry.load(kind, name))


NEEDS_MORE = {"cuda", "rapl", "perf_energy", "nvml_energy", "nvml_power", "instructions"} | {
    "fp8", "int8wo", "int4wo", "int8dq",  # torchao, an extra
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_everything_in_the_catalogue_is_available_here(kind: Kind) -> None:
    found = {item.name: item.unavailable for item in catalogue.items(kind)}
    assert found.keys() == registry.rows(kind).keys()
    assert {name for name, reason in found.items() if reason is not None} <= NEEDS_MORE


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Unknown meter 'wal'. Did you mean wall"):
        registry.load("meters", "wal")


def test_a_name_near_to_nothing_lists_what_there_is() -> None:
    with pytest.raises(UnknownName, match="Known: eager, onnxruntime, openvino"):
        registry.load("backends", "zzzzzz")


def test_a_users_module_that_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match="'no_such_module_here:x' cannot be imported from"):
        registry.load_own("no_such_module_here:x")
