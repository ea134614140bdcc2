"""Chains of trials, each of which starts where the climb of the one before ended.

A trial of a chain records the trial it comes after and the preference it climbs for (trial
attribute ``slopes:link``), so that chains are a function of the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from evomerge.arrays import FloatArray
from evomerge.samplers.gene_space import GeneValue
from evomerge.samplers.learned import CLIMB, CLIMB_ERROR, CLIMBED
from evomerge.samplers.preferences import Yardstick
from evomerge.samplers.results import Result

__all__ = ["LINK", "Chains", "Link", "climbs_fail"]

_TRIED = 3  # climbs that all fail: more would, too
LINK = "slopes:link"  # trial system attribute: ``after``, ``preference`` and ``pull``


@dataclass(frozen=True)
class Link:
    """One trial of a chain.

    Attributes:
        number: Trial number.
        after: The trial before it; ``None`` if it started the chain.
        preference: (objectives,) that it climbs for.
        pull: How strongly its climb draws genes together; ``None`` if an earlier version asked.
        climbs: Whether it was asked to climb on once it was scored.
        is_running: Whether it is still evaluated.
        result: What it came to; ``None`` while it runs, or if it ran again under another number.
        end: Where its climb ended; ``None`` if it took none, or that failed.
    """

    number: int
    after: int | None
    preference: FloatArray
    pull: float | None = None
    climbs: bool = False
    is_running: bool = True
    result: Result | None = None
    end: Mapping[str, GeneValue] | None = None

    @property
    def losses(self) -> tuple[float, ...] | None:
        """Its losses, if it was scored."""
        return None if self.result is None else self.result.losses

    def data(self) -> dict[str, Any]:
        """Return what the store keeps of it."""
        preference = self.preference.tolist()
        return {"after": self.after, "preference": preference, "pull": self.pull}

    def value(self, yardstick: Yardstick) -> float:
        """Say how far it got along its preference; what is infeasible got nowhere."""
        if self.result is None or self.result.losses is None or self.result.violation > 0:
            return -np.inf
        return yardstick.along(self.result.losses, self.preference)


class Chains:
    """The chains of a study.

    Args:
        trials: Of the study, by number.
        results: Of the finished ones.
    """

    def __init__(self, trials: Sequence[FrozenTrial], results: Sequence[Result]) -> None:
        found = {result.number: result for result in results}
        self.links = {t.number: _link(t, found) for t in trials if LINK in t.system_attrs}

    @property
    def running(self) -> list[Link]:
        """Links that are evaluated."""
        return [link for link in self.links.values() if link.is_running]

    @property
    def heads(self) -> list[Link]:
        """The last link of every chain, by number; two drivers may both have gone on from one."""
        continued = {link.after for link in self.links.values()}
        return [link for number, link in self.links.items() if number not in continued]

    def best(self, head: Link, yardstick: Yardstick) -> Link:
        """Return the link of a head's chain that got farthest, the first one of equals."""
        return max(reversed(self.back_from(head)), key=lambda link: link.value(yardstick))

    def back_from(self, head: Link) -> list[Link]:
        """List the links of a chain from its head to its start."""
        path = [head]
        while (after := path[-1].after) is not None:
            path.append(self.links[after])
        return path


def climbs_fail(trials: Sequence[FrozenTrial]) -> bool:
    """Tell whether climbs are no use: the first ones that ended failed, or the last three.

    Args:
        trials: Of the study, by number.
    """
    ended = [t.user_attrs for t in trials if t.user_attrs.keys() & {CLIMBED, CLIMB_ERROR}]
    return bool(ended) and not any(CLIMBED in attrs for attrs in ended[-_TRIED:])


def _link(trial: FrozenTrial, results: Mapping[int, Result]) -> Link:
    data = trial.system_attrs[LINK]
    return Link(
        number=trial.number,
        after=data["after"],
        preference=np.array(data["preference"], dtype=np.float64),
        pull=data.get("pull"),
        climbs=CLIMB in trial.user_attrs,
        is_running=not trial.state.is_finished(),
        result=results.get(trial.number),
        end=(trial.user_attrs.get(CLIMBED) or {}).get("params"),
    )
