"""The measurements of one run by case and pass. Pure."""

from __future__ import annotations

from dataclasses import replace

from leanmark import chain
from leanmark.reading.cost import of_links
from leanmark.reading.counts import PASSES
from leanmark.record import BASELINE, Case, Cost, Measurement, Pass
from leanmark.reference import reference_among
from leanmark.statistics.merge import merged
from leanmark.store import Records


class Passes:
    """Of a pass made twice, the later counts."""

    def __init__(self, records: Records) -> None:
        self.run = records.run
        self._found = {(one.case, one.pass_name): one for one in merged(records.measurements)}
        self.all = self._found.values()
        self._cases = [case for case, name in self._found if name == "latency"]

    def get(self, case: Case, name: Pass) -> Measurement | None:
        return self._found.get((case, name))

    def counters(self, case: Case | None) -> list[Measurement | None]:
        """The passes that count, in the order in which they are believed."""
        return [self.get(case, name) for name in PASSES] if case else []

    def prepared(self, case: Case) -> Measurement | None:
        """The prepare pass; facts of a model hold for every phase and batch it runs in."""
        own = self.get(case, "prepare")
        if own is not None:
            return own
        same = (case.workload, case.technique, case.backend, case.commit)  # also that of a sentinel
        return next(
            (
                one
                for (other, name), one in self._found.items()
                if name == "prepare"
                and one.status == "ok"
                and (other.workload, other.technique, other.backend, other.commit) == same
            ),
            None,
        )

    def cost(self, case: Case) -> Cost | None:
        """What making the model took: the sum over the links of its chain, each made from the one before."""
        links = chain.parse(case.technique)
        names = [chain.spell(links[: n + 1]) for n in range(len(links))] or [BASELINE]
        return of_links([self.prepared(replace(case, technique=name)) for name in names])

    def reference(self, case: Case) -> Case | None:
        """What ``case`` is compared to; ``None`` for the baseline itself."""
        reference = reference_among(case, self._cases)
        if reference is None or (case.is_baseline and self.get(reference, "latency") is None):
            return None
        return reference
