"""What making a model cost when it was made link by link. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from leanmark.record import Cost, Provenance


def total(costs: Sequence[Cost]) -> Cost:
    """The sum of ``costs``, of which there is at least one; its energy is known only if all are.

    Uncertainties are added as they are: the gain of the sensor is the same in all of them.
    """
    if len(costs) == 1:
        return costs[0]
    joules = [cost.energy_j for cost in costs if cost.energy_j is not None]
    doubts = [cost.energy_uncertainty_j for cost in costs if cost.energy_uncertainty_j is not None]
    known = len(joules) == len(costs)
    return Cost(
        time_s=sum(cost.time_s for cost in costs),
        energy_j=sum(joules) if known else None,
        energy_provenance=Provenance.worst(cost.energy_provenance for cost in costs),
        energy_reason=next((cost.energy_reason for cost in costs if cost.energy_j is None), None),
        energy_uncertainty_j=sum(doubts) if known and len(doubts) == len(costs) else None,
    )
