"""A gate fails only on what a second pass, in another order and other processes, finds worse again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from leanmark import plan, store
from leanmark.measuring.campaign import Campaign
from leanmark.measuring.source import Source
from leanmark.plan import Plan
from leanmark.progress import Notify
from leanmark.reading import gate, tabulate
from leanmark.reading.gate import Rule, Ruling


def confirmed(
    made: Plan,
    records: Path,
    rules: Sequence[Rule],
    results: Path,
    notify: Notify,
    rival: Source | None = None,
) -> tuple[Ruling, ...]:
    """What is worse in ``records`` and worse again when measured once more, with another seed.

    What was counted needs no second pass: it would be the same.
    ``rival`` is the other commit's code, where the first run had one.
    Measures nothing where there is no rule, or nothing is worse.
    """
    worse = _worse(records, rules)
    certain = tuple(one for one in worse if one.rule.exact)
    suspects = {(one.case, one.rule) for one in worse if not one.rule.exact}
    if not suspects:
        return certain
    again = plan.restrict(made, [case for case, _ in suspects])
    sampling = replace(again.sampling, seed=again.sampling.seed + 1, target=None)  # no rule judges that
    with Campaign(replace(again, sampling=sampling), results, notify, rival) as campaign:
        campaign.run_all()
    again_worse = _worse(campaign.path, rules)
    return (*certain, *(one for one in again_worse if (one.case, one.rule) in suspects))


def _worse(records: Path, rules: Sequence[Rule]) -> list[Ruling]:
    tables = tabulate.build([store.load(records)])
    return [one for one in gate.rulings(tables, rules) if one.verdict == "worse"]
