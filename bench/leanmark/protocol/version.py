"""Whether two leanmarks understand each other: with ``--against``, parent and worker may be of two commits.

Messages are pickled, and a slotted dataclass unpickles by the place of its fields: one more field on one
side and values land under the wrong names, silently. So the fields themselves are part of the number.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from leanmark.machine.counters import Counted
from leanmark.protocol import messages
from leanmark.record import short_hash

NUMBER = 1
"""Raised where a message changes its meaning and keeps its fields."""


def protocol() -> str:
    """``1-0d9f3c5a21be``: the number, and a hash of all fields that are sent either way."""
    known = (*vars(messages).values(), Counted)
    classes = [one for one in known if isinstance(one, type) and is_dataclass(one)]
    sent = {one.__name__: [f"{field.name}: {field.type}" for field in fields(one)] for one in classes}
    return f"{NUMBER}-{short_hash(sent)}"
