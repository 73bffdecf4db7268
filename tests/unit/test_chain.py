from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmark import chain
from leanmark.chain import Link
from leanmark.errors import UnknownName, UsageError


def test_fp32_is_the_empty_chain() -> None:
    assert chain.parse("fp32") == ()
    assert chain.spell(()) == "fp32"


def test_links_are_read_from_left_to_right_with_their_options() -> None:
    assert chain.parse("prune(ratio=0.5, round_to=16)+int8") == (
        Link("prune", (("ratio", "0.5"), ("round_to", "16"))),
        Link("int8"),
    )


def test_options_are_spelled_in_one_order_so_that_equal_chains_have_equal_names() -> None:
    one, other = chain.parse("prune(round_to=8,ratio=0.5)"), chain.parse("prune(ratio=0.5,round_to=8)")
    assert chain.spell(one) == chain.spell(other) == "prune(ratio=0.5,round_to=8)"


@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True),
            st.dictionaries(
                st.from_regex(r"[a-z_]{1,6}", fullmatch=True),
                st.from_regex(r"[0-9.+e-]{1,6}", fullmatch=True),
                max_size=3,
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_spelled_is_read_back(parts: list[tuple[str, dict[str, str]]]) -> None:
    links = tuple(Link(name, tuple(sorted(options.items()))) for name, options in parts)
    if links != (Link("fp32"),):
        assert chain.parse(chain.spell(links)) == links


@pytest.mark.parametrize("text", ["", "prune+", "prune(0.5)", "prune(ratio=)", "pr une", "prune(a=1))"])
def test_what_is_no_chain_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="should look like|option=value"):
        chain.parse(text)


def test_an_option_that_is_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'prune\(ratio=0.5,ratio=0.7\)' has an option twice"):
        chain.parse("prune(ratio=0.5,ratio=0.7)+int8")


def test_an_unknown_technique_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean prune") as caught:
        chain.build(Link("prun"))
    assert caught.value.exit_code == 2


def test_an_unknown_option_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"option of prune 'ration'. Did you mean ratio"):
        chain.build(Link("prune", (("ration", "0.5"),)))


def test_an_option_of_the_wrong_kind_or_range_is_refused() -> None:
    with pytest.raises(UsageError, match="ratio needs a float, not 'half'"):
        chain.build(Link("prune", (("ratio", "half"),)))
    with pytest.raises(UsageError, match="prune"):
        chain.build(Link("prune", (("ratio", "1.5"),)))


@pytest.mark.parametrize("name", ["leanmark.chain:Link", "leanmark.chain:parse", "fractions:Fraction"])
def test_what_is_no_technique_is_told_what_one_is(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' is no technique: it must be a frozen dataclass derived"):
        chain.build(Link(name))
