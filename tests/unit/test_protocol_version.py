from __future__ import annotations

import re
from dataclasses import make_dataclass

import pytest

from leanmark.protocol import messages, version


def test_it_is_a_number_and_a_hash_and_stays_the_same() -> None:
    assert re.fullmatch(rf"{version.NUMBER}-[0-9a-f]{{12}}", version.protocol())
    assert version.protocol() == version.protocol()


def test_a_field_more_anywhere_is_another_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    before = version.protocol()
    changed = make_dataclass("RunBlock", [("loops", "int"), ("more", "int")], frozen=True, slots=True)
    monkeypatch.setattr(messages, "RunBlock", changed)
    assert version.protocol() != before


def test_what_messages_carry_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = version.protocol()
    monkeypatch.setattr(messages, "Case", make_dataclass("Case", [("workload", "str")]))
    assert version.protocol() != before
