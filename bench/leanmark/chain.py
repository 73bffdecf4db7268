"""Technique chains as text: ``prune(ratio=0.5)+int8`` and back. Pure; imports no torch.

Techniques are applied from left to right. ``fp32`` is the empty chain.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leanmark import registry
from leanmark.errors import UnknownName, UsageError
from leanmark.record import BASELINE

if TYPE_CHECKING:
    from leanmark.techniques.base import Technique

_LINK = re.compile(r"(?P<name>[\w.:-]+)(?:\((?P<options>[^()]*)\))?")


@dataclass(frozen=True, slots=True)
class Link:
    """One technique of a chain with the options the user gave."""

    name: str
    options: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name}({','.join(f'{key}={value}' for key, value in self.options)})"


def parse(text: str) -> tuple[Link, ...]:
    """Split a chain into its links.

    Raises:
        UsageError: the text is not a chain.
    """
    if text.strip() == BASELINE:
        return ()
    return tuple(_parse_link(part.strip(), text) for part in _split(text))


def spell(links: tuple[Link, ...]) -> str:
    """The canonical text of a chain; ``fp32`` for the empty one."""
    return "+".join(str(link) for link in links) or BASELINE


def build(link: Link) -> Technique:
    """The technique a link names, with its options converted and checked.

    Raises:
        UnknownName: no such technique or option; the nearest names are suggested.
        UsageError: an option has a value of the wrong kind or out of range, or a user's own is no technique.
    """
    cls = _own(link.name) if ":" in link.name else registry.load("techniques", link.name)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values: dict[str, Any] = {}
    for key, text in link.options:
        if key not in fields:
            raise UnknownName(f"option of {link.name}", key, fields)
        values[key] = _convert(text, fields[key], link)
    try:
        technique: Technique = cls(**values)
    except ValueError as error:
        raise UsageError(f"{link}: {error}") from error
    return technique


def _own(target: str) -> Any:
    """A user's own technique, by ``module:class``."""
    cls = registry.load_own(target)
    interface = registry.load_target("leanmark.techniques.base:Technique")
    if not (isinstance(cls, type) and issubclass(cls, interface) and dataclasses.is_dataclass(cls)):
        raise UsageError(
            f"'{target}' is no technique: it must be a frozen dataclass derived from "
            "leanmark.techniques.base.Technique"
        )
    return cls


def _split(text: str) -> list[str]:
    return re.split(r"\+(?![^()]*\))", text)


def _parse_link(part: str, whole: str) -> Link:
    match = _LINK.fullmatch(part)
    if match is None:
        raise UsageError(
            f"'{whole}' is not a technique chain: '{part}' should look like name or name(option=value,...)"
        )
    options = []
    for item in filter(None, (match["options"] or "").split(",")):
        key, equals, value = item.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(f"'{part}': write options as option=value, not '{item}'")
        options.append((key.strip(), value.strip()))
    if len({key for key, _ in options}) < len(options):
        raise UsageError(f"'{part}' has an option twice")
    return Link(match["name"], tuple(sorted(options)))


def _convert(text: str, field: dataclasses.Field[Any], link: Link) -> Any:
    kind: type[Any] = type(field.default)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{link}: option {field.name} needs a {kind.__name__}, not '{text}'") from error
