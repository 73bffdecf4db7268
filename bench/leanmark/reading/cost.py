"""What making a model cost when it was made link by link. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leanmark.record import Cost, Measurement, Provenance


def of_links(made: Sequence[Measurement | None]) -> Cost | None:
    """What making the links of one chain cost, ``None`` where that is not known of every one."""
    costs = [one.cost for one in made if one is not None and one.cost is not None]
    return total(costs) if len(costs) == len(made) else None


def total(costs: Sequence[Cost]) -> Cost:
    """The sum of ``costs``, of which there is at least one; its energy is known only if all are.

    Uncertainties are added as they are: the gain of the sensor is the same in all of them. Of what building
    for the backend took only the last counts: the others were for measuring what is in between.
    """
    if len(costs) == 1:
        return costs[0]
    joules = [cost.energy_j for cost in costs if cost.energy_j is not None]
    doubts = [cost.energy_uncertainty_j for cost in costs if cost.energy_uncertainty_j is not None]
    known = len(joules) == len(costs)
    built = next((cost for cost in reversed(costs) if cost.build_s is not None), costs[-1])
    return replace(
        built,
        time_s=sum(cost.time_s for cost in costs),
        energy_j=sum(joules) if known else None,
        energy_provenance=Provenance.worst(cost.energy_provenance for cost in costs),
        energy_reason=next((cost.energy_reason for cost in costs if cost.energy_j is None), None),
        energy_uncertainty_j=sum(doubts) if known and len(doubts) == len(costs) else None,
        epochs=None,
        steps=None,
    )
