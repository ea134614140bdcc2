"""Numbers as a reader wants them: as many digits as the noise allows, times in human units."""

from __future__ import annotations

import math

from evomerge.analysis.intervals import Estimate

__all__ = ["format_duration", "format_estimate", "format_number", "format_stderr", "format_value"]

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def format_number(number: float) -> str:
    """Write a number of unknown noise with three significant digits, at most three decimals."""
    if not math.isfinite(number):
        return str(number)
    decimals = 3 if abs(number) < 10 else 1
    return _signed(f"{number:.{decimals}f}" if abs(number) < 1e5 else f"{number:.3g}")


def format_value(estimate: Estimate, digits: int = 2) -> str:
    """Write the value of an estimate, rounded where its standard error ends.

    Args:
        estimate: What to write.
        digits: Significant digits of the standard error to keep.
    """
    decimals = _decimals(estimate, digits)
    if decimals is None:
        return format_number(estimate.value)
    return _signed(f"{estimate.value:.{decimals}f}")


def format_stderr(estimate: Estimate, digits: int = 2) -> str:
    """Write the standard error alone, or nothing when it is unknown."""
    decimals = _decimals(estimate, digits)
    if decimals is None:
        return "0" if estimate.stderr == 0 else ""
    return f"{estimate.stderr:.{decimals}f}"


def format_estimate(estimate: Estimate, digits: int = 2) -> str:
    """Write ``0.713 ± 0.021``; without a known standard error only the value."""
    error = format_stderr(estimate, digits)
    return format_value(estimate, digits) + (f" ± {error}" if error else "")


def format_duration(seconds: float) -> str:
    """Write a duration in its natural unit, e.g. ``0.21 s``, ``42 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 10:
        return f"{seconds:.2g} s" if seconds >= 0.01 or seconds == 0 else "< 0.01 s"
    if whole < _MINUTE:
        return f"{whole} s"
    for unit, name, part, part_name in (
        (_DAY, "d", _HOUR, "h"),
        (_HOUR, "h", _MINUTE, "min"),
        (_MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name}" + (f" {rest} {part_name}" if rest else "")
    raise AssertionError("a minute is the smallest unit above")


def _decimals(estimate: Estimate, digits: int) -> int | None:
    """Decimals that show ``digits`` significant digits of the standard error, if it is usable."""
    if not (math.isfinite(estimate.value) and 0 < estimate.stderr < math.inf):
        return None
    return min(8, max(0, digits - 1 - math.floor(math.log10(estimate.stderr))))


def _signed(text: str) -> str:
    """Use the minus sign that is as wide as a digit, and never write minus zero."""
    if text.startswith("-"):
        return "\N{MINUS SIGN}" + text[1:] if text.strip("-0.") else text[1:]
    return text
