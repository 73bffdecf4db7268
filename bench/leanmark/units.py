"""Numbers for people: 187 µs, 12.3 mJ, 4.2 MB, 0.62×. Decimal prefixes; three significant digits at most.

Every function takes ``None`` for "not measured" and says so.
"""

from __future__ import annotations

import math

MISSING = "not measured"

_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_PICO = 1e-12


def seconds(value: float | None) -> str:
    """``187 µs``, ``1.04 ms``, ``12.0 s``; from two minutes on ``2 min 5 s`` and ``3 h 20 min``."""
    if value is None:
        return MISSING
    whole = round(value)
    if whole >= 7200:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    if whole >= 120:
        return f"{whole // 60} min {whole % 60} s"
    return _prefixed(value, "s")


def guess(value_s: float) -> str:
    """A time that is only estimated, in whole seconds: ``88 s``, ``2 min 5 s``."""
    whole = round(value_s)
    return f"{whole} s" if whole < 120 else seconds(whole)


def joules(value: float | None) -> str:
    return MISSING if value is None else _prefixed(value, "J")


def watts(value: float | None) -> str:
    return MISSING if value is None else _prefixed(value, "W")


def grams(value: float | None) -> str:
    """Two digits: a grid intensity is not known better than that."""
    return MISSING if value is None else _prefixed(value, "g", digits=2)


def size(value: float | None) -> str:
    """Bytes: ``512 B``, ``4.2 MB``, ``123 MB``."""
    if value is None:
        return MISSING
    return f"{value:.0f} B" if abs(value) < 1000 else _prefixed(value, "B", decimals=1)


def count(value: float | None) -> str:
    """``980``, ``12.3 k``, ``1.20 M``."""
    if value is None:
        return MISSING
    return f"{value:.0f}" if abs(value) < 1000 else _prefixed(value, "").strip()


def rate(value: float | None) -> str:
    """Samples per second: ``5.35 k/s``."""
    return MISSING if value is None else f"{count(value) if value >= 100 else _digits(value, 3)}/s"


def ratio(value: float | None) -> str:
    """Candidate over baseline: ``0.62×``, ``12.4×``, ``0.031×``."""
    return MISSING if value is None else f"{_bare_ratio(value)}×"


def ratio_interval(value: float, low: float, high: float) -> str:
    """``0.62× [0.60, 0.64]``, all three with the same number of decimals."""
    decimals = max(2, _decimals(value, 2))
    return f"{value:.{decimals}f}× [{low:.{decimals}f}, {high:.{decimals}f}]"


def percent(value: float | None) -> str:
    """A share: ``97.2 %``."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def quality(metric: str, value: float) -> str:
    """A quality by its metric: ``97.2 %``, and ``0.912`` for R²."""
    return f"{value:.3f}" if metric == "r2" else percent(value)


def points(value: float | None) -> str:
    """A difference of two shares in percentage points, with its sign: ``−0.3``, ``+1.1``."""
    return MISSING if value is None else signed(100 * value, 1)


def signed(value: float, decimals: int) -> str:
    """With ``+`` or a true minus; plain zero has no sign."""
    text = f"{abs(value):.{decimals}f}"
    if not float(text):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def _bare_ratio(value: float) -> str:
    return f"{value:.{max(2, _decimals(value, 2))}f}" if value < 10 else _digits(value, 3)


def _prefixed(value: float, unit: str, *, digits: int = 3, decimals: int = 3) -> str:
    if abs(value) < _PICO:
        return f"{value:.0f} {unit}"
    # rounded before the prefix is chosen, or 999.6 µs would read 1000 µs
    rounded = float(f"{value:.{max(digits, 3) - 1}e}")
    power = 3 * (math.floor(math.log10(abs(rounded))) // 3)
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    scaled = rounded / 10**power
    places = min(decimals, _decimals(scaled, digits))
    return f"{scaled:.{places}f} {_PREFIXES[power]}{unit}"


def _digits(value: float, digits: int) -> str:
    return f"{value:.{_decimals(value, digits)}f}"


def _decimals(value: float, digits: int) -> int:
    """Decimals that leave ``digits`` significant ones; digits before the point are never rounded off."""
    if value == 0:
        return 0
    return max(0, digits - 1 - math.floor(math.log10(abs(value))))
