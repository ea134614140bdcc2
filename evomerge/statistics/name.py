"""What a statistic is asked for by: its name, and the parameters of its own."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StatisticName"]


@dataclass(frozen=True)
class StatisticName:
    """A statistic with its parameters, e.g. the activity above 1e-05.

    Attributes:
        statistic: Member of ``TensorStatistics``.
        parameters: Those that it takes, in order; none for most.
    """

    statistic: str
    parameters: tuple[object, ...] = ()

    def __str__(self) -> str:
        """Write it, e.g. ``activity 1e-05``."""
        return " ".join((self.statistic, *map(repr, self.parameters)))

    @classmethod
    def parse(cls, text: str) -> StatisticName:
        """Read what ``str`` has written; a parameter that is no number stays text."""
        statistic, *parameters = text.split(" ")
        return cls(statistic, tuple(map(_number, parameters)))


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
