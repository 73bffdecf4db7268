"""Reading machine code: how many instructions, and what is in its loops."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NESTED = """
        code for sm_90
        /*0000*/                   LDC R1, c[0x0][0x28] ;           /* 0x00000a00ff017b82 */
                                                                    /* 0x000fe40000000800 */
        /*0010*/                   MOV R2, R1 ;
        /*0020*/              @!P0 HFMA2.BF16_V2 R3, R2, R2, R2 ;
        /*0030*/                   LOP3.LUT R3, R3, 0xf000f, RZ, 0xc0, !PT ;
        /*0040*/              @UP1 UIADD3 UR4, UR4, 0x1, URZ ;
        /*0050*/               @P1 BRA 0x30 ;
        /*0060*/               @P0 BRA {target} ;
        /*0070*/                   EXIT ;
        /*0080*/                   BRA 0x80;
        /*0090*/                   NOP;
"""


Parse = Callable[[str], Any]


@pytest.fixture
def machine_code(monkeypatch: pytest.MonkeyPatch) -> Parse:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    function: Parse = importlib.import_module("triton_machine_code").machine_code
    return function


def test_the_longest_of_nested_loops_is_counted_without_predicates(machine_code: Parse) -> None:
    found = machine_code(NESTED.replace("{target}", "0x20"))
    assert found.longest == {"HFMA2.BF16_V2": 1, "LOP3.LUT": 1, "UIADD3": 1, "BRA": 2}
    assert found.instructions == 9  # that which fills the last line is none


def test_slow_code_is_looked_for_in_the_shortest_loop_that_multiplies(machine_code: Parse) -> None:
    nested = NESTED.replace("{target}", "0x20").replace("MOV R2, R1", "STL [R1], R2")
    assert machine_code(nested).multiplying == {}
    inner = machine_code(nested.replace("LOP3.LUT R3", "HGMMA.64x64x16.F32.BF16 R3, gsb0, 0x1"))
    assert inner.multiplying == {"gsb0, 0x1": 1, "MUFU.RCP": 0, "LDL": 0, "STL": 0}


def test_branches_forward_make_no_loop(machine_code: Parse) -> None:
    assert machine_code(NESTED.replace("{target}", "0x70").replace("BRA 0x30", "BRA 0x60")).longest == {}


def test_code_without_a_loop_has_none(machine_code: Parse) -> None:
    assert machine_code("        /*0080*/                   BRA 0x80;\n").longest == {}
