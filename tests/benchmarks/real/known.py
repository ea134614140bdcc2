"""Merges that need no search, or next to none: what a found one is held against."""

from __future__ import annotations

from evomerge.recipe.recipe import Recipe, Rule
from evomerge.recipe.rules import copy_rule, sum_rule
from evomerge.space.protocol import ModelSet
from tests.benchmarks.real.scoring import Scorer

__all__ = ["known_merges", "parents_and_average"]

_COEFFICIENTS = (0.3, 0.5, 0.7, 1.0)
# Yadav et al. 2023: the largest 20 % of each whole task vector, votes without coefficients, λ = 1.
_TIES = {"density": 0.2, "scope": "global", "vote": "unweighted", "normalize": True, "lambda": 1.0}
# Yu et al. 2024: nine of ten changes dropped, the rest rescaled by ten; then signs as TIES elects.
_DARE_TIES = {"density": 0.1, "vote": "unweighted", "normalize": True, "lambda": 1.0}


def parents_and_average(models: ModelSet) -> dict[str, Recipe]:
    """Name the experts, the base and the uniform average of the experts."""
    names = tuple(models.experts)
    found = {f"expert `{name}`": models.recipe((copy_rule(name, names),)) for name in names}
    found["base"] = models.recipe((copy_rule("base", names),))
    return {**found, "uniform average": _average(models, names)}


def known_merges(models: ModelSet, scorer: Scorer) -> dict[str, Recipe]:
    """Name the models and merges of a table; where one is chosen, search items choose.

    Args:
        models: Base and experts.
        scorer: Scores what is chosen among.
    """
    found = parents_and_average(models)
    found |= [_best_sum(models, scorer)]
    found |= [_greedy_soup(models, scorer)]
    ones = dict.fromkeys(models.experts, 1.0)
    found["TIES, density 0.2"] = models.recipe((Rule("ties", {"coefficient": ones, **_TIES}),))
    dare = Rule("dare_ties", {"coefficient": ones, **_DARE_TIES})
    return {**found, "DARE-TIES, density 0.1": models.recipe((dare,))}


def _best_sum(models: ModelSet, scorer: Scorer) -> tuple[str, Recipe]:
    """Task arithmetic with one coefficient for all, the best of a few on the search items."""
    sums = {c: models.recipe((sum_rule(dict.fromkeys(models.experts, c)),)) for c in _COEFFICIENTS}
    scorer.score(sums.values(), "search")
    best = max(sums, key=lambda c: scorer.mean(sums[c], "search").value)
    return f"task arithmetic, {best:g} for all, best of {len(sums)}", sums[best]


def _greedy_soup(models: ModelSet, scorer: Scorer) -> tuple[str, Recipe]:
    """Wortsman et al. 2022, recipe 1: experts by their score; each stays if the average gains."""

    def value(soup: list[str]) -> float:
        return scorer.mean(_average(models, soup), "search").value

    scorer.score([_average(models, [name]) for name in models.experts], "search")
    first, *others = sorted(models.experts, key=lambda name: -value([name]))
    soup = [first]
    for name in others:
        if value([*soup, name]) > value(soup):
            soup = [*soup, name]
    return f"greedy soup of {', '.join(soup)}", _average(models, soup)


def _average(models: ModelSet, names: tuple[str, ...] | list[str]) -> Recipe:
    if len(names) == 1:
        return models.recipe((copy_rule(names[0], models.experts),))
    share = {name: (name in names) / len(names) for name in models.experts}
    return models.recipe((Rule("linear", {"coefficient": share, "normalize": True}),))
