"""What the assembler made of a Triton kernel: the instructions of its machine code, and of its loops."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

INSTRUCTION = re.compile(r"^\s*/\*(?P<at>[0-9a-f]{4,})\*/\s+(?:@\S+\s+)?(?P<text>\S.*?)\s*;", re.MULTILINE)
BRANCH = re.compile(r"BRA\b.*?0x(?P<to>[0-9a-f]+)")

MULTIPLIES = re.compile(r"\b([HIQ]GMMA|[HI]MMA|UTC\w*MMA)\b")
"""What multiplies matrices."""

SLOW = ("gsb0, 0x1", "MUFU.RCP", "LDL", "STL")
"""In the loop that multiplies: on Hopper a wait that lets the last products run on, what a division by a
number unknown to the compiler begins with, and the traffic of registers that spilled."""


@dataclass(frozen=True, slots=True)
class MachineCode:
    """Of one kernel: how many ``instructions`` there are; how often each, as ``HFMA2.BF16_V2``, stands in the
    ``longest`` loop; how often each of SLOW occurs in the shortest loop that multiplies. Loops that are not
    there are empty."""

    instructions: int
    longest: Mapping[str, int]
    multiplying: Mapping[str, int]


def machine_code(disassembly: str) -> MachineCode:
    """``disassembly`` is what ``cuobjdump -sass`` prints of one kernel.

    A loop ends in a branch back; the one to itself behind the last instruction is none, and what fills the
    last line of the cache is no instruction.
    """
    found = [(int(each["at"], 16), each["text"]) for each in INSTRUCTION.finditer(disassembly)]
    loops = [body for at, text in found if (body := _loop(found, at, text))]
    loops.sort(key=len)
    longest: list[str] = loops[-1] if loops else []
    shortest = next(("\n".join(body) for body in loops if any(map(MULTIPLIES.search, body))), "")
    return MachineCode(
        instructions=sum(text != "NOP" for _, text in found),
        longest=dict(Counter(text.split()[0] for text in longest)),
        multiplying={each: shortest.count(each) for each in SLOW} if shortest else {},
    )


def _loop(found: list[tuple[int, str]], end: int, text: str) -> list[str]:
    """What stands between the target of the branch at ``end`` and itself, if it leads back."""
    branch = BRANCH.match(text)
    begin = int(branch["to"], 16) if branch else end
    return [each for at, each in found if begin <= at <= end] if begin < end else []
