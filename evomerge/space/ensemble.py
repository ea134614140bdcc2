"""Ensembles: nothing is merged; how much each model's predictions count is what is searched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from optuna import Trial
from optuna.distributions import FloatDistribution
from pydantic import ConfigDict

from evomerge.errors import Fault, SpaceError
from evomerge.recipe.ensemble import OutputMix
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Recipe
from evomerge.space.baselines import single_model_rules
from evomerge.space.distributions import in_range, range_text, suggest
from evomerge.space.protocol import GeneInfo, ModelSet, Params, SearchSpace
from evomerge.space.simplex import breaks_of, even_break, shares_of

__all__ = ["EnsembleSpace", "EnsembleSpec", "ensemble_faults", "has_ensembles"]

_SAME = 1e-9


@dataclass(frozen=True)
class EnsembleSpec:
    """A space of ensembles as written in YAML.

    Attributes:
        by: ``probabilities`` or ``logits``, whose weighted mean is taken; or ``proxy``: logits of
            the base plus, for each expert, alpha times what it adds to them.
        base: Whether the base is one of the models; it always is in ``proxy``.
        alpha: Range of alphas, for ``proxy``.

    Source:
        Liu et al. 2024, "Tuning Language Models by Proxy", arXiv:2401.08565, for ``proxy``; with
        one expert and the base as the large model, since models of a study have one size.
    """

    kind: Literal["ensemble"] = "ensemble"
    by: Literal["probabilities", "logits", "proxy"] = "probabilities"
    base: bool = False
    alpha: tuple[float, float] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")


class EnsembleSpace:
    """Shares that sum to one, or an alpha for each expert; implements ``SearchSpace``.

    Shares are breaks of a stick (``simplex``); after a break of 1 nothing is left to break.

    Args:
        spec: What varies.
        models: What answers.

    Raises:
        SpaceError: Every fault.
    """

    def __init__(self, spec: EnsembleSpec, models: ModelSet) -> None:
        if faults := ensemble_faults(spec, models):
            raise SpaceError(*faults)
        self._by, self._models = spec.by, models
        self._names = (*([BASE] if spec.base else []), *models.experts)
        self.statistics: tuple[str, ...] = ()
        self.depths: Mapping[str, int] = {}
        if spec.by == "proxy":
            low, high = spec.alpha or (0.0, 2.0)
            genes = [f"alpha.{name}" for name in models.experts]
            self.distributions = dict.fromkeys(genes, FloatDistribution(low, high))
            middle = min(max(1.0 / len(genes), low), high)
            self.defaults: Params = dict.fromkeys(genes, middle)
        else:
            n = len(self._names)
            genes = [f"share.{name}" for name in self._names[:-1]]
            self.distributions = dict.fromkeys(genes, FloatDistribution(0.0, 1.0))
            self.defaults = {gene: even_break(i, n) for i, gene in enumerate(genes)}

    def suggest(self, trial: Trial) -> Params:
        """See ``SearchSpace``."""
        params: dict[str, float | int | str] = {}
        for name, distribution in self.distributions.items():
            params[name] = value = suggest(trial, name, distribution)
            if self._by != "proxy" and float(value) >= 1:
                break
        return params

    def recipe(self, params: Params) -> Recipe:
        """See ``SearchSpace``."""
        values = [float(params[name]) for name in self.distributions if name in params]
        if self._by == "proxy":
            weights = {BASE: 1.0 - sum(values), **dict(zip(self._names, values, strict=True))}
            mix = OutputMix("logits", weights)
        else:
            shares = shares_of(values, len(self._names))
            mix = OutputMix(self._by, dict(zip(self._names, shares, strict=True)))
        return replace(self._models.recipe(()), ensemble=mix)

    def params(self, recipe: Recipe) -> Params | None:
        """See ``SearchSpace``; one model alone is an ensemble, too."""
        own = self._models.base, dict(self._models.experts)
        weights = _weights(recipe, self._mix)
        if (recipe.base, dict(recipe.experts)) != own or weights is None:
            return None
        names = (BASE, *self._names) if self._by == "proxy" else self._names
        if any(abs(weights[name]) > _SAME for name in weights.keys() - {*names}):
            return None
        shares = [weights.get(name, 0.0) for name in names]
        if self._by != "proxy" and min(shares) < -_SAME:
            return None
        found = shares[1:] if self._by == "proxy" else breaks_of(shares)
        params = dict(zip(self.distributions, found, strict=False))
        return params if in_range(params, self.distributions) else None

    def describe(self) -> list[GeneInfo]:
        """See ``SearchSpace``."""
        meanings = {
            "share": "its part of what the models before it left",
            "alpha": "how much of what it adds to the base's logits counts",
        }
        return [
            GeneInfo(name, range_text(gene), self.defaults[name], meanings[name.partition(".")[0]])
            for name, gene in self.distributions.items()
        ]

    @property
    def _mix(self) -> str:
        return "logits" if self._by == "proxy" else self._by


def _weights(recipe: Recipe, by: str) -> Mapping[str, float] | None:
    """Read who answers, and how much each counts; ``None`` if models are merged."""
    if recipe.ensemble is not None:
        return recipe.ensemble.shares if recipe.ensemble.by == by else None
    names = tuple(recipe.experts)
    for owner in (BASE, *names):
        if not recipe.path and recipe.rules in [(r,) for r in single_model_rules(owner, names)]:
            return {owner: 1.0}
    return None


def has_ensembles(space: SearchSpace | None) -> bool:
    """Tell whether candidates of a space may be ensembles."""
    return space is not None and space.recipe(space.defaults).ensemble is not None


def ensemble_faults(spec: EnsembleSpec, models: ModelSet) -> list[Fault]:
    """List every fault of a space of ensembles; empty if all is well."""
    return [*_faults(spec, models)]


def _faults(spec: EnsembleSpec, models: ModelSet) -> Iterator[Fault]:
    if spec.by != "proxy":
        if spec.alpha is not None:
            text = f"by: {spec.by} has shares, which are from 0 to 1"
            yield Fault(("alpha",), text, "leave it out")
        if len(models.experts) + spec.base < 2:
            text = "expected at least two models, got one expert without the base"
            yield Fault(("base",), text, "base: true")
        return
    if spec.base:
        yield Fault(("base",), "by: proxy has the base already", "leave it out")
    yield from _alpha_faults(spec.alpha)


def _alpha_faults(alpha: Sequence[float] | None) -> Iterator[Fault]:
    if alpha is not None and not -math.inf < alpha[0] < alpha[1] < math.inf:
        text = f"expected [low, high] with low < high, both finite, got {list(alpha)}"
        yield Fault(("alpha",), text)
