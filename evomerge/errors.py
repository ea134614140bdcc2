"""The errors a user can cause, and the faults they carry: what was expected, what came, where.

A ``Fault`` is one thing that is wrong. Whoever finds it says at which keys, relative to what it
looks at; ``under`` and ``placed`` add the rest on its way up, ``collected`` goes on to find more.

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

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from difflib import get_close_matches
from reprlib import Repr

__all__ = [
    "CheckpointError",
    "ConfigError",
    "EvaluationError",
    "EvomergeError",
    "Fault",
    "KeyPath",
    "NonFiniteError",
    "RecipeError",
    "SpaceError",
    "StudyError",
    "brief",
    "changed",
    "collected",
    "did_you_mean",
    "near_name",
    "placed",
    "quotes_hint",
    "spelt",
    "under",
]

KeyPath = tuple[str | int, ...]  # keys and positions that lead to a value

_BRIEF = Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxtuple = 3, 6, 6, 6
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 120
_LONGEST = 200


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, in one line.

    Attributes:
        path: Keys and positions that lead to it, from the top of what ``place`` names.
        text: What was expected, and what came.
        hint: What to do, where the text does not say so.
        place: The file, with the line if it is known, or ``--set KEY``; empty until it is known.
    """

    path: KeyPath
    text: str
    hint: str = ""
    place: str = ""

    def __str__(self) -> str:
        where = [part for part in (self.place, spelt(self.path)) if part]
        return "; ".join(filter(None, (": ".join([*where, self.text]), self.hint)))

    def under(self, *path: str | int) -> Fault:
        """Say at which keys the path starts; one that has a place starts there already."""
        return self if self.place else replace(self, path=(*path, *self.path))

    def at(self, place: str) -> Fault:
        """Say where the path starts, if that is not known yet."""
        return replace(self, place=self.place or place)


class EvomergeError(Exception):
    """A user's mistake or a fault of their files; the command line prints a line per fault.

    Args:
        faults: Everything that is wrong; text stands for a fault without a path.
    """

    def __init__(self, *faults: Fault | str) -> None:
        super().__init__(*faults)
        as_given = [Fault((), fault) if isinstance(fault, str) else fault for fault in faults]
        self.faults = tuple(dict.fromkeys(as_given))

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults))


class ConfigError(EvomergeError):
    """An experiment, preset or override is wrong."""


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


def spelt(path: KeyPath) -> str:
    """Write a path as people do: ``evaluators[1].limit``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            is_plain = not set(". []") & set(part)
            text += part if not text else f".{part}" if is_plain else f"[{part!r}]"
    return text


@contextmanager
def changed(change: Callable[[Fault], Fault]) -> Iterator[None]:
    """Change the faults of an error that leaves the block."""
    try:
        yield
    except EvomergeError as err:
        raise type(err)(*map(change, err.faults)) from err.__cause__


def under(*path: str | int) -> AbstractContextManager[None]:
    """Say at which keys the faults that leave the block are."""
    return changed(lambda fault: fault.under(*path))


def placed(place: str) -> AbstractContextManager[None]:
    """Say in what the faults that leave the block are."""
    return changed(lambda fault: fault.at(place))


@contextmanager
def collected(faults: list[Fault], *path: str | int) -> Iterator[None]:
    """Go on after an error inside the block, adding its faults, which are under a path."""
    try:
        yield
    except EvomergeError as err:
        faults += [fault.under(*path) for fault in err.faults]


def brief(value: object) -> str:
    """Write a value of any size for a message: large ones are cut short."""
    text = _BRIEF.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


def quotes_hint(value: object) -> str:
    """Give the hint where text was expected that YAML may have read as something else."""
    if isinstance(value, bool):
        return "YAML reads on, off, yes and no as true and false: put text in quotes"
    return "put text that looks like a number in quotes" if isinstance(value, (int, float)) else ""


def did_you_mean(got: str, known: Iterable[str], *, cutoff: float = 0.4) -> str:
    """End a message about an unknown name with the nearest known one.

    Args:
        got: What came.
        known: What may come.
        cutoff: How alike the two must be, in [0, 1].

    Returns:
        ``; did you mean 'linear'?``, or nothing if no name is near.
    """
    near = near_name(got, known, cutoff=cutoff)
    return f"; did you mean {near!r}?" if near else ""


def near_name(got: str, known: Iterable[str], *, cutoff: float = 0.4) -> str | None:
    """Find the known name that an unknown one is nearest to, if any is near; as above."""
    return next(iter(get_close_matches(got, list(known), n=1, cutoff=cutoff)), None)
