"""The models every search starts from: parents, averages, and what is known to be good."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from evomerge import origins
from evomerge.errors import SpaceError
from evomerge.methods.base import ParameterValue
from evomerge.models.reference import reference_data
from evomerge.recipe.ensemble import OutputMix
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.recipe.rules import copy_rule, sum_rule
from evomerge.space.protocol import ModelSet, Params, SearchSpace

__all__ = ["Baseline", "Seeds", "baselines", "over_models", "single_model_rules"]


@dataclass(frozen=True)
class Baseline:
    """One model to evaluate before the search.

    Attributes:
        origin: ``base``, ``expert:NAME``, ``winner:NAME`` (an expert that is a merge of an earlier
            stage), ``uniform``, ``task_arithmetic:COEFFICIENT``, ``recipe:NAME`` or
            ``study:NAME#TRIAL``; see ``origins``.
        recipe: How to make it.
        params: Its place in the space, or ``None`` if the space cannot express it.
    """

    origin: str
    recipe: Recipe
    params: Params | None


@dataclass(frozen=True)
class Seeds:
    """Which models a search starts from.

    Attributes:
        parents: The base and every expert.
        averages: The uniform average of the experts.
        task_arithmetic: Coefficients of the sum of all task vectors, one model each.
        recipes: Recipes over the models that are mixed (see ``over_models``), by origin.
    """

    parents: bool = True
    averages: bool = True
    task_arithmetic: tuple[float, ...] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)


def baselines(space: SearchSpace, models: ModelSet, seeds: Seeds = Seeds()) -> tuple[Baseline, ...]:
    """List the baselines, each once, in a form the space can express if there is one.

    Args:
        space: Where params are looked up.
        models: Base and experts.
        seeds: Which.
    """
    found: list[Baseline] = []
    for origin, forms in _wanted(models, seeds):
        one = _in_space(origin, forms, space)
        if not any(_are_the_same(one, other) for other in found):
            found.append(one)
    return tuple(found)


def over_models(recipe: Recipe, models: ModelSet) -> Recipe:
    """Rewrite a recipe with the names, order, dtype, seed and prompts of the models that are mixed.

    Args:
        recipe: With the same base and experts under any names.
        models: What is mixed.

    Raises:
        SpaceError: It mixes other models.
    """
    names = {str(reference_data(reference)): name for name, reference in models.experts.items()}
    theirs = {name: str(reference_data(reference)) for name, reference in recipe.experts.items()}
    unknown = [reference for reference in theirs.values() if reference not in names]
    missing = [reference for reference in names if reference not in theirs.values()]
    if recipe.base not in (None, models.base):
        raise SpaceError(f"expected the base {models.base}, got {recipe.base}")
    if unknown or missing:
        raise SpaceError(
            f"expected a recipe over exactly the experts {', '.join(names)}, got "
            f"{', '.join(theirs.values())}; an expert with coefficient 0 takes no part"
        )
    renamed = {name: names[reference] for name, reference in theirs.items()}
    ours = models.recipe(tuple(_renamed(rule, renamed) for rule in recipe.rules))
    return replace(
        recipe,
        base=ours.base,
        experts=ours.experts,
        rules=ours.rules,
        path=tuple(replace(h, source=renamed.get(h.source, h.source)) for h in recipe.path),
        dtype=ours.dtype,
        seed=ours.seed,
        prompts=ours.prompts,
        tokenizer=ours.tokenizer,
        parts=ours.parts,
        ensemble=None if recipe.ensemble is None else _renamed_mix(recipe.ensemble, renamed),
    )


def _wanted(models: ModelSet, seeds: Seeds) -> Iterator[tuple[str, list[Recipe]]]:
    """List origins, and recipes of different methods that make the same model."""
    names = tuple(models.experts)
    mixes = {}
    if seeds.parents:
        mixes[origins.BASE] = dict.fromkeys(names, 0.0)
        mixes |= {_origin(name, models): {n: float(n == name) for n in names} for name in names}
    if seeds.averages and len(names) > 1:
        mixes[origins.UNIFORM] = dict.fromkeys(names, 1.0 / len(names))
    for origin, mix in mixes.items():
        yield origin, [models.recipe((rule,)) for rule in _equivalent_rules(origin, mix)]
    for coefficient in seeds.task_arithmetic:
        forms = [models.recipe((rule,)) for rule in _sums(dict.fromkeys(names, coefficient))]
        # As shares times a scale, the scale may be out of range where the coefficient is not.
        yield origins.task_arithmetic(coefficient), [r for r in forms if not r.faults()]
    yield from ((origin, [recipe]) for origin, recipe in seeds.recipes.items())


def single_model_rules(name: str, experts: tuple[str, ...]) -> Iterator[Rule]:
    """Yield rules of different methods that make one model as it is, the exact copy first.

    Args:
        name: An expert, or ``base``.
        experts: All experts, in recipe order.
    """
    origin = origins.BASE if name == "base" else origins.expert(name)
    rules = _equivalent_rules(origin, {expert: float(expert == name) for expert in experts})
    copy = copy_rule(name, experts)
    yield from (copy, *(rule for rule in rules if rule != copy))


def _origin(expert: str, models: ModelSet) -> str:
    return (origins.winner if expert in models.winners else origins.expert)(expert)


def _in_space(origin: str, forms: list[Recipe], space: SearchSpace) -> Baseline:
    for recipe in forms:
        params = space.params(recipe)
        if params is not None:
            return Baseline(origin, recipe, params)
    return Baseline(origin, forms[0], None)


def _are_the_same(one: Baseline, other: Baseline) -> bool:
    if one.params is None or other.params is None:
        return one.recipe.digest == other.recipe.digest
    return dict(one.params) == dict(other.params)


def _equivalent_rules(origin: str, mix: dict[str, float]) -> Iterator[Rule]:
    yield from _sums(mix)
    if origin != origins.BASE:  # a linear mix of no expert is not the base
        yield Rule("linear", {"coefficient": mix, "normalize": True})
    if origin == origins.UNIFORM:  # an election is not an average
        return
    yield from _slerp_ends(mix)
    ones: dict[str, ParameterValue] = {"coefficient": mix, "lambda": 1.0}
    for name in ("ties", "dare_ties", "dare_linear"):
        for normalize in (True, False):
            yield Rule(name, {**ones, "density": 1.0, "normalize": normalize})


def _sums(mix: dict[str, float]) -> Iterator[Rule]:
    """The base plus a mix of task vectors; also as shares that sum to one, times a scale."""
    plain = sum_rule(mix)
    yield plain
    total = sum(mix.values())
    if total not in (0.0, 1.0):
        shares = {name: coefficient / total for name, coefficient in mix.items()}
        yield sum_rule(shares, total)
    yield Rule("dare_linear", {**plain.parameters, "density": 1.0})


def _slerp_ends(mix: dict[str, float]) -> Iterator[Rule]:
    """The ends of the arc: base and expert if there is one, the two experts if there are two."""
    ends = ["base", *mix][-2:]
    model = next((name for name, coefficient in mix.items() if coefficient), "base")
    if len(mix) <= 2 and model in ends:
        yield Rule("slerp", {"t": float(ends.index(model))})


def _renamed_mix(mix: OutputMix, names: Mapping[str, str]) -> OutputMix:
    return replace(mix, weights={names.get(n, n): weight for n, weight in mix.weights.items()})


def _renamed(rule: Rule, names: Mapping[str, str]) -> Rule:
    def rename(settings: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
        return {
            key: {names[expert]: one for expert, one in value.items()}
            if isinstance(value, Mapping)
            else value
            for key, value in settings.items()
        }

    modifiers = {name: rename(settings) for name, settings in rule.modifiers.items()}
    return replace(rule, parameters=rename(rule.parameters), modifiers=modifiers)
