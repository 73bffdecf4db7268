"""leanmark: what an efficiency technique buys on this machine, and what it costs.

Importing this package imports no torch: records can be read, compared and published anywhere.
"""

from leanmark.record import (
    Block,
    Case,
    Comparison,
    Environment,
    Finding,
    Interval,
    Measurement,
    Provenance,
    Series,
)

__version__ = "0.1.0"

__all__ = [
    "Block",
    "Case",
    "Comparison",
    "Environment",
    "Finding",
    "Interval",
    "Measurement",
    "Provenance",
    "Series",
    "__version__",
]
