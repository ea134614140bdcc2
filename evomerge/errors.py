"""The errors a user can cause; each message says what was expected, what came, where, what to do.

EvomergeError
├── ConfigError       experiment, preset or override files
├── SpaceError        a search space that cannot be searched
├── RecipeError       a recipe that describes no model
├── CheckpointError   model files: missing, of other shapes
│   └── NonFiniteError    … whose tensors hold NaN or infinity, as stored or as merged
├── EvaluationError   tasks, splits, metrics
└── StudyError        study folders and their storage
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from reprlib import Repr

__all__ = [
    "CheckpointError",
    "ConfigError",
    "EvaluationError",
    "EvomergeError",
    "NonFiniteError",
    "RecipeError",
    "SpaceError",
    "StudyError",
    "brief",
    "did_you_mean",
    "quotes_hint",
]

_BRIEF = Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxtuple = 3, 6, 6, 6
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 120
_LONGEST = 200


class EvomergeError(Exception):
    """A user's mistake or a fault of their files; the command line prints it as one line."""


class ConfigError(EvomergeError):
    """An experiment, preset or override is wrong; holds every fault found.

    Args:
        faults: One line per fault, each complete in itself.
    """

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class SpaceError(EvomergeError):
    """A search space is empty, unreachable, or does not fit its models."""


class RecipeError(EvomergeError):
    """A recipe is not valid, or cannot be written in the format asked for."""


class CheckpointError(EvomergeError):
    """A checkpoint is missing, or incompatible with its base."""


class NonFiniteError(CheckpointError):
    """A model holds NaN or infinity, or a merge would."""


class EvaluationError(EvomergeError):
    """A task, split or metric does not exist or cannot be prepared."""


class StudyError(EvomergeError):
    """A study folder is missing, locked or belongs to another experiment."""


def brief(value: object) -> str:
    """Write a value of any size for a message: large ones are cut short."""
    text = _BRIEF.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def quotes_hint(value: object) -> str:
    """End a message that text was expected, where YAML may have read text as something else."""
    if isinstance(value, bool):
        return "; YAML reads on, off, yes and no as true and false: put text in quotes"
    return (
        "; put text that looks like a number in quotes" if isinstance(value, (int, float)) else ""
    )


def did_you_mean(got: str, known: Iterable[str], *, cutoff: float = 0.4) -> str:
    """End a message about an unknown name with the nearest known one.

    Args:
        got: What came.
        known: What may come.
        cutoff: How alike the two must be, in [0, 1].

    Returns:
        ``; did you mean 'linear'?``, or nothing if no name is near.
    """
    near = get_close_matches(got, list(known), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""
