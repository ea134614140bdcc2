"""``slopes``: trials that climb on along the slopes of the objectives, in chains.

Every trial is scored as any other, then its worker takes a few steps from there; the next trial of
the chain is where they ended. One that got no farther than the trial before takes no steps, and the
middle between the two is next: if that gets no farther either, the chain ends. Failed and pruned
trials end their chain. Infeasible ones count as no improvement, whether they climb or not, and no
chain starts from them. Where climbs fail, say because a model cannot run backward, what starts
chains goes on alone: an evolution of what is good for a preference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from pydantic import ConfigDict, Field

from evomerge.arrays import FloatArray
from evomerge.errors import SpaceError
from evomerge.optuna_internals import storage_of, trial_id
from evomerge.samplers.chains import LINK, Chains, Link, climbs_fail
from evomerge.samplers.gene_space import GeneValue
from evomerge.samplers.joint import JointSampler
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem
from evomerge.samplers.learned import CLIMB
from evomerge.samplers.preferences import Yardstick, lacking, voices, yardstick_of
from evomerge.samplers.results import QUEUED, Result, Trials, Tried
from evomerge.samplers.unit_cube import UnitCube
from evomerge.schema import parse
from evomerge.seeds import seed_for

__all__ = ["SLOPES", "Climbers"]

_SHRINKING = 0.8  # of the first step, from link to link: the nearer, the shorter
_LATER = 0.6  # first step of later chains: they start from what is good already
_PARTNERS = 4  # the best so many results for a preference are combined with the best one
_SPREAD = 0.05  # of a start around what it is combined from, as a share of an axis
_PULLS = (0.5, 0.0, 2.0)  # of the chains in turn, where it varies
_FIRST_SPREAD = 0.15  # while there is nothing to combine
_SHORT = 4  # times fewer items than others has a step of a short climb


@dataclass(frozen=True)
class _SlopesOptions:
    """Options of ``slopes``.

    Attributes:
        steps: Of the climb of a trial.
        items: Per objective and step.
        short: How many trials of chains come first whose climbs take a quarter of the items: rough
            slopes are good enough far from the front, and more merges are seen.
        step_size: Longest first step along any gene, as a share of its range.
        pull: How strongly genes are drawn to what those at other depths have; ``varied``: as much
            as by default, not at all, or more, from chain to chain, and the finals decide.
        loss: What a climb makes small: ``gold``, how wrong a model is; ``entropy``, how undecided,
            whatever is right (AdaMerging). Trials are compared by their real scores either way.
        start: Where the first chain starts: ``middle``, halfway between the neutral values and the
            best baseline, or ``neutral``.
    """

    steps: Annotated[int, Field(ge=1, le=10_000)] = 4
    items: Annotated[int, Field(ge=1, le=1_000_000)] = 48
    short: Annotated[int, Field(ge=0, le=1_000_000)] = 8
    step_size: Annotated[float, Field(gt=0, le=1)] = 0.15
    pull: Annotated[float, Field(ge=0, le=1000)] | Literal["varied"] = 0.5
    loss: Literal["gold", "entropy"] = "gold"
    start: Literal["middle", "neutral"] = "middle"

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class _Proposal:
    """A trial that is proposed.

    Attributes:
        link: Its place in a chain.
        params: A value for every gene.
        losses: From which it is known how far each objective has come; ``None``: nothing is.
        first_step: Of its climb, as a share of the longest.
        reached: How far its chain has got (``Yardstick.along``); -inf: nowhere.
    """

    link: Link
    params: Mapping[str, GeneValue]
    losses: Sequence[float] | None
    first_step: float
    reached: float = -math.inf


class Climbers:
    """Goes on with a chain that gets farther, or starts one where the front lacks most.

    A chain starts from a combination of results that are good for its preference, a little off
    them, so that a basin is left; genes without slopes are combined and mutated there, and held
    while it climbs. The first one aims at all objectives alike, and starts at or near the neutral
    values.

    Args:
        problem: What is searched.
        options: How to climb.
    """

    def __init__(self, problem: SearchProblem, options: _SlopesOptions) -> None:
        self._problem, self._options = problem, options
        self._space, self._cube = problem.space, UnitCube(problem.space.searched)
        self._trials = Trials(problem.space, constrained=problem.constrained)
        self._is_sloped = np.array([name in problem.sloped for name in self._cube.names])

    def __call__(self, study: Study, trial: FrozenTrial) -> dict[str, GeneValue]:
        """Propose the params of a trial, and store its climb with it."""
        results = self._trials.finished(study)
        yardstick = yardstick_of(results, self._problem.n_objectives)
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        chains = Chains(others, results)
        tried = Tried([*(r.active for r in results), *self._trials.running(study)], self._space)
        proposal = self._continued(trial.number, chains, yardstick, tried)
        if proposal is None:
            proposal = self._started(trial.number, chains, yardstick, results)
        if QUEUED not in trial.system_attrs:  # else somebody chose its params
            climb = None if climbs_fail(others) else self._climb(proposal, chains, yardstick)
            if climb is not None and math.isfinite(proposal.reached):
                climb["goal"] = _goal(proposal, yardstick, study.directions)
            self._store(study, trial, proposal.link, climb)
        return {name: proposal.params[name] for name in self._space.searched}

    def _continued(
        self, number: int, chains: Chains, yardstick: Yardstick, tried: Tried
    ) -> _Proposal | None:
        """Go on with the first chain that can."""
        for head in chains.heads:
            params = self._next(head, chains, yardstick)
            if params is None or params in tried:
                continue
            link = Link(number, head.number, head.preference, head.pull)
            n_links = len(chains.back_from(head))
            best = chains.best(head, yardstick)
            reached = best.value(yardstick)
            return _Proposal(link, params, best.losses, _SHRINKING**n_links, reached)
        return None

    def _started(
        self, number: int, chains: Chains, yardstick: Yardstick, results: Sequence[Result]
    ) -> _Proposal:
        """Start a chain where the front lacks most."""
        rng = np.random.default_rng(seed_for(self._problem.seed, "chain", number))
        preference = self._preference(chains, results, yardstick, rng)
        params, losses = self._start(chains, results, yardstick, preference, rng)
        link = Link(number, None, preference, self._pull(chains))
        return _Proposal(link, params, losses, _LATER if chains.links else 1.0)

    def _next(
        self, head: Link, chains: Chains, yardstick: Yardstick
    ) -> dict[str, GeneValue] | None:
        """Say where a chain goes on, if it does: where its climb ended, or halfway to there."""
        if head.result is None or head.losses is None or head.result.pruned:
            return None
        best = chains.best(head, yardstick)
        if best is head:
            return None if head.end is None else self._space.complete(head.end)
        overshot = head.climbs and head.end is None and head.after == best.number
        if best.result is None or best.result.violation > 0 or not overshot:
            return None
        ends = self._cube.encode(best.result.params), self._cube.encode(head.result.params)
        return self._space.complete(self._cube.decode((ends[0] + ends[1]) / 2))

    def _pull(self, chains: Chains) -> float:
        """Choose the pull of the next chain."""
        if self._options.pull != "varied":
            return self._options.pull
        n_chains = sum(link.after is None for link in chains.links.values())
        return _PULLS[n_chains % len(_PULLS)]

    def _preference(
        self,
        chains: Chains,
        results: Sequence[Result],
        yardstick: Yardstick,
        rng: np.random.Generator,
    ) -> FloatArray:
        if not chains.links:
            return np.ones(self._problem.n_objectives)
        progress = yardstick.progress([losses for losses, _ in _feasible(results)])
        latest = max(chains.links.values(), key=lambda link: link.number)
        return lacking(progress, [link.preference for link in (latest, *chains.running)], rng)

    def _start(
        self,
        chains: Chains,
        results: Sequence[Result],
        yardstick: Yardstick,
        preference: FloatArray,
        rng: np.random.Generator,
    ) -> tuple[dict[str, GeneValue], Sequence[float] | None]:
        """Return where a chain starts, and the losses that are to be expected there."""
        known = sorted(_feasible(results), key=lambda pair: -yardstick.along(pair[0], preference))
        if all(result.queued for _, result in known):
            spread = _FIRST_SPREAD if chains.links else 0.0
            return self._first([result for _, result in known], spread, rng), None
        (losses, best), (_, other) = known[0], known[rng.integers(min(1 + _PARTNERS, len(known)))]
        ends = self._cube.encode(best.params), self._cube.encode(other.params)
        return self._varied(*ends, _SPREAD, rng), losses

    def _first(
        self, known: Sequence[Result], spread: float, rng: np.random.Generator
    ) -> dict[str, GeneValue]:
        """Start between the neutral values and the best baseline, as far as one is known."""
        point = self._cube.encode(self._space.defaults)
        if known and self._options.start == "middle":
            point = (point + self._cube.encode(known[0].params)) / 2
        point = point + self._is_sloped * rng.normal(0.0, spread, len(point))
        return self._space.complete(self._cube.decode(np.clip(point, 0.0, 1.0)))

    def _varied(
        self, one: FloatArray, other: FloatArray, spread: float, rng: np.random.Generator
    ) -> dict[str, GeneValue]:
        """Combine two points, nearer to the first; genes without slopes come from either."""
        share = np.where(self._is_sloped, rng.uniform(0.0, 0.5), rng.random(len(one)) < 1 / 4)
        point = one + share * (other - one) + self._is_sloped * rng.normal(0.0, spread, len(one))
        n_held = int((~self._is_sloped).sum())
        mutates = ~self._is_sloped & (rng.random(len(one)) < 1 / max(n_held, 1))
        point = np.where(mutates, rng.random(len(one)), point)
        return self._space.complete(self._cube.decode(np.clip(point, 0.0, 1.0)))

    def _climb(self, proposal: _Proposal, chains: Chains, yardstick: Yardstick) -> dict[str, Any]:
        link, losses, options = proposal.link, proposal.losses, self._options
        progress = None if losses is None else yardstick.progress([losses])[0]
        counted = voices(progress, link.preference) * self._problem.sloped_objectives
        is_short = sum(number < link.number for number in chains.links) < options.short
        return {
            "params": dict(proposal.params),
            "voices": counted.tolist(),
            "steps": options.steps,
            "items": math.ceil(options.items / _SHORT) if is_short else options.items,
            "step_size": options.step_size * proposal.first_step,
            "pull": _PULLS[0] if link.pull is None else link.pull,
            "seed": seed_for(self._problem.seed, "climb", link.number),
            "loss": options.loss,
        }

    def _store(
        self, study: Study, trial: FrozenTrial, link: Link, climb: dict[str, Any] | None
    ) -> None:
        storage = storage_of(study)
        if climb is not None:
            storage.set_trial_user_attr(trial_id(trial), CLIMB, climb)
        storage.set_trial_system_attr(trial_id(trial), LINK, link.data())


def _goal(
    proposal: _Proposal, yardstick: Yardstick, directions: Sequence[StudyDirection]
) -> dict[str, Any]:
    """Say what values must exceed for a chain to have got farther, as ``Climb.goal``."""
    signs = np.array([-1.0 if d is StudyDirection.MAXIMIZE else 1.0 for d in directions])
    return {
        "zeros": (signs * yardstick.zero).tolist(),
        "units": (-signs * yardstick.width).tolist(),
        "preference": proposal.link.preference.tolist(),
        "reached": proposal.reached,
    }


def _feasible(results: Sequence[Result]) -> list[tuple[tuple[float, ...], Result]]:
    """Pair results that may start a chain with their losses."""
    scored = [(r.losses, r) for r in results if r.losses is not None and not r.pruned]
    return [(losses, r) for losses, r in scored if r.violation == 0]


def _build(options: Options, problem: SearchProblem) -> BaseSampler:
    chosen = parse(_SlopesOptions, options)
    if not problem.sloped & problem.space.searched.keys():
        raise SpaceError(
            "expected a space with genes that have slopes, such as coefficients, got none; choose "
            "another sampler than slopes, e.g. auto"
        )
    if not any(problem.sloped_objectives):
        raise SpaceError(
            "expected an objective with slopes, got none; choose another sampler than slopes, e.g. "
            "auto"
        )
    return JointSampler(problem.space, Climbers(problem, chosen), seed=problem.seed)


SLOPES = SamplerKind(
    "any number of coefficients, few trials: they climb along their objectives' slopes", _build
)
