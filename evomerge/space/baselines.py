"""The models every search starts from: the base, each expert, the uniform average."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evomerge.methods.base import ParameterValue
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.space.protocol import ModelSet, Params, SearchSpace

__all__ = ["Baseline", "baselines", "single_model_rules"]


@dataclass(frozen=True)
class Baseline:
    """One model to evaluate before the search.

    Attributes:
        origin: ``base``, ``expert:NAME`` or ``uniform``.
        recipe: How to make it.
        params: Its place in the space, or ``None`` if the space cannot express it.
    """

    origin: str
    recipe: Recipe
    params: Params | None


def baselines(space: SearchSpace, models: ModelSet) -> tuple[Baseline, ...]:
    """List the baselines, each in a form the space can express if there is one.

    Args:
        space: Where params are looked up.
        models: Base and experts.
    """
    names = tuple(models.experts)
    mixes = {
        "base": dict.fromkeys(names, 0.0),
        **{f"expert:{name}": {n: float(n == name) for n in names} for name in names},
    }
    if len(names) > 1:
        mixes["uniform"] = dict.fromkeys(names, 1.0 / len(names))
    return tuple(_in_space(origin, mix, space, models) for origin, mix in mixes.items())


def single_model_rules(name: str, experts: tuple[str, ...]) -> Iterator[Rule]:
    """Yield rules of different methods that make one model as it is, the exact copy first.

    Args:
        name: An expert, or ``base``.
        experts: All experts, in recipe order.
    """
    origin = "base" if name == "base" else f"expert:{name}"
    rules = _equivalent_rules(origin, {expert: float(expert == name) for expert in experts})
    yield from sorted(rules, key=lambda rule: rule.method != "linear")  # the one that copies


def _in_space(origin: str, mix: dict[str, float], space: SearchSpace, models: ModelSet) -> Baseline:
    forms = [_recipe(rule, models) for rule in _equivalent_rules(origin, mix)]
    for recipe in forms:
        params = space.params(recipe)
        if params is not None:
            return Baseline(origin, recipe, params)
    return Baseline(origin, forms[0], None)


def _equivalent_rules(origin: str, mix: dict[str, float]) -> Iterator[Rule]:
    """Yield rules of different methods that make the same model."""
    ones: dict[str, ParameterValue] = {"coefficient": mix, "lambda": 1.0}
    yield Rule("task_arithmetic", {**ones, "normalize": False})
    if origin != "base":  # a linear mix of no expert is not the base
        yield Rule("linear", {"coefficient": mix, "normalize": True})
    if origin == "uniform":  # an election is not an average
        return
    yield from _slerp_ends(origin, mix)
    for name in ("ties", "dare_ties", "dare_linear"):
        for normalize in (True, False):
            yield Rule(name, {**ones, "density": 1.0, "normalize": normalize})


def _slerp_ends(origin: str, mix: dict[str, float]) -> Iterator[Rule]:
    """The ends of the arc: base and expert if there is one, the two experts if there are two."""
    ends = ["base", *(f"expert:{name}" for name in mix)][-2:]
    if len(mix) <= 2 and origin in ends:
        yield Rule("slerp", {"t": float(ends.index(origin))})


def _recipe(rule: Rule, models: ModelSet) -> Recipe:
    return Recipe(
        base=models.base,
        experts=models.experts,
        rules=(rule,),
        dtype=models.dtype,
        seed=models.seed,
    )
