"""A recipe as a reader wants to see it: each parameter by layer, module kind and expert."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from evomerge.errors import ConfigError
from evomerge.methods.base import ParameterValue
from evomerge.models.architecture import Kind, TensorRole
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.schema import parse, write_yaml

__all__ = ["HeatCell", "Panel", "PathHop", "RecipeView", "Row", "view_recipe"]

_LAYERED: tuple[Kind, ...] = ("attention", "mlp", "norm")
_OUTSIDE: tuple[Kind, ...] = ("embedding", "head")
_Place = tuple[Kind, int | None]  # module kind and layer; None where layers are not told apart


@dataclass(frozen=True)
class HeatCell:
    """One value of a panel.

    Attributes:
        value: The parameter; ``None`` where the recipe states no number (the method's default).
        share: Size relative to the panel's largest, in [0, 1], for shading.
    """

    value: float | None
    share: float


@dataclass(frozen=True)
class Row:
    """One line of a panel: an expert's values on some module kinds.

    Attributes:
        expert: Expert name; empty where experts share the parameter.
        kinds: Module kinds with these same values, e.g. ``attention, norm``.
        cells: One per layer, or one.
    """

    expert: str
    kinds: str
    cells: tuple[HeatCell, ...]


@dataclass(frozen=True)
class Panel:
    """One parameter over the whole model.

    Attributes:
        parameter: Its name; that of a modifier as ``modifier:parameter``.
        layers: Columns of ``rows``; 1 where layers are not told apart.
        rows: Inside the layers.
        outside: Embedding and head, one cell each; empty where ``rows`` includes them.
        limit: Largest size of any value, what the deepest shade stands for.
    """

    parameter: str
    layers: int
    rows: tuple[Row, ...]
    outside: tuple[Row, ...]
    limit: float


@dataclass(frozen=True)
class PathHop:
    """One hop of a data-flow path.

    Attributes:
        source: Whose layer it is.
        layer: Which.
        scale: What its input is multiplied by; 1 where the recipe has none.
    """

    source: str
    layer: int
    scale: float


@dataclass(frozen=True)
class RecipeView:
    """What the report says about one recipe.

    Attributes:
        methods: (where, method) pairs; one pair with an empty place when all is one method. A
            method is written with its modifiers, e.g. ``task_arithmetic + trim``.
        panels: Numbers that vary over the model or between experts.
        constants: (parameter, value) of what is the same everywhere.
        by_name: Rules on tensor names; they go first and are not in the panels.
        path: Hops of a data-flow path; empty without one.
        yaml: The whole recipe.
    """

    methods: tuple[tuple[str, str], ...]
    panels: tuple[Panel, ...]
    constants: tuple[tuple[str, str], ...]
    by_name: int
    path: tuple[PathHop, ...]
    yaml: str


def view_recipe(recipe: Mapping[str, object], *, has_head: bool = True) -> RecipeView:
    """Resolve a recipe's rules (first match wins) to values per layer, kind and expert.

    A recipe does not say how many layers its models have: the last layer any rule names is taken
    for the last, which holds for recipes that spell their layers out.

    Args:
        recipe: YAML-ready data; whatever is not as recipes are is shown as YAML only.
        has_head: Whether the models have a head apart from the embedding; where the two are tied
            the head is merged as the embedding, and no rule for heads applies.
    """
    known = _parsed(recipe)
    rules = known.rules if known else ()
    by_place = [rule for rule in rules if rule.where.names is None]
    layers = max((rule.where.layers[1] for rule in by_place if rule.where.layers), default=0)
    matched = {place: _first_match(by_place, place) for place in _places(layers, has_head)}
    experts = list(known.experts) if known else []
    panels, constants = [], _shares(known)
    for parameter in _parameter_names(by_place):
        columns = _per_expert(parameter, matched, experts)
        distinct = {value for column in columns.values() for value in column.values()}
        if len(distinct) == 1 and "" in columns:
            constants.append((parameter, _plain_text(distinct.pop())))
        elif any(_number(value) is not None for value in distinct):
            panels.append(_panel(parameter, columns, layers))
    return RecipeView(
        methods=_methods(matched, layers) or _answering(known),
        panels=tuple(panels),
        constants=tuple(constants),
        by_name=len(rules) - len(by_place),
        path=tuple(PathHop(h.source, h.layer, h.scale) for h in known.path) if known else (),
        yaml=write_yaml({key: _plain(value) for key, value in recipe.items()}),
    )


def _answering(known: Recipe | None) -> tuple[tuple[str, str], ...]:
    """Say how the models of an ensemble answer, where a merge has its method."""
    if known is None or known.ensemble is None:
        return ()
    return (("", f"ensemble of {known.ensemble.by}"),)


def _shares(known: Recipe | None) -> list[tuple[str, str]]:
    """List what the models of an ensemble count."""
    if known is None or known.ensemble is None:
        return []
    return [(f"share of {name}", f"{share:.3g}") for name, share in known.ensemble.shares.items()]


def _parsed(recipe: Mapping[str, object]) -> Recipe | None:
    """Read a recipe; its methods need not be known here. ``None`` if it is none."""
    try:
        return parse(Recipe, recipe)
    except ConfigError:
        return None


def _parameters(rule: Rule) -> dict[str, ParameterValue]:
    """List the parameters of a rule's method, and those of its modifiers."""
    of_modifiers = {
        f"{modifier}:{name}": value
        for modifier, parameters in rule.modifiers.items()
        for name, value in parameters.items()
    }
    return {**rule.parameters, **of_modifiers}


def _places(layers: int, has_head: bool) -> list[_Place]:
    """Every place a rule can tell apart; with no layer rules all layers are one place."""
    inside: list[_Place] = [(kind, layer) for kind in _LAYERED for layer in _span(layers)]
    return inside + _outside(layers)[: 1 + has_head]


def _span(layers: int) -> Sequence[int | None]:
    return range(layers) if layers else [None]


def _outside(layers: int) -> list[_Place]:
    """Recipes count the embedding with the first layer and the head with the last."""
    return [("embedding", 0), ("head", layers - 1)] if layers else [(k, None) for k in _OUTSIDE]


def _first_match(rules: Sequence[Rule], place: _Place) -> Rule | None:
    role = TensorRole(place[1] or 0, place[0])
    return next((rule for rule in rules if rule.where.matches("", role)), None)


def _parameter_names(rules: Iterable[Rule]) -> list[str]:
    return list(dict.fromkeys(name for rule in rules for name in _parameters(rule)))


def _per_expert(
    parameter: str, matched: Mapping[_Place, Rule | None], experts: Sequence[str]
) -> dict[str, dict[_Place, object]]:
    """Values of one parameter by expert (``""`` for all of them) and place."""
    stated: dict[_Place, object] = {
        place: _parameters(rule).get(parameter) if rule else None for place, rule in matched.items()
    }
    if not any(isinstance(value, Mapping) for value in stated.values()):
        return {"": stated}
    return {
        expert: {
            place: value.get(expert) if isinstance(value, Mapping) else value
            for place, value in stated.items()
        }
        for expert in experts
    }


def _panel(parameter: str, columns: Mapping[str, Mapping[_Place, object]], layers: int) -> Panel:
    numbers = {e: {p: _number(v) for p, v in column.items()} for e, column in columns.items()}
    sizes = [abs(v) for column in numbers.values() for v in column.values() if v is not None]
    limit = max(sizes, default=0.0)

    def rows(kinds: Mapping[Kind, Sequence[_Place]]) -> tuple[Row, ...]:
        return tuple(
            Row(
                expert,
                _kinds_label(names, len(inside | outside)),
                tuple(_cell(v, limit) for v in values),
            )
            for expert, column in numbers.items()
            for values, names in _grouped(
                {kind: tuple(column[place] for place in places) for kind, places in kinds.items()}
            )
        )

    span = _span(layers)
    places = next(iter(columns.values()))
    outside = {place[0]: [place] for place in places if place[0] in _OUTSIDE}
    inside = {kind: [(kind, layer) for layer in span] for kind in _LAYERED}
    if all(len({c[p] for p in kind}) == 1 for c in numbers.values() for kind in inside.values()):
        # Layers that do not differ need no columns, and then nothing sets the layers apart.
        everywhere = {kind: found[:1] for kind, found in {**inside, **outside}.items()}
        return Panel(parameter, 1, rows(everywhere), (), limit)
    return Panel(parameter, len(span), rows(inside), rows(outside), limit)


def _kinds_label(kinds: Sequence[str], n_kinds: int) -> str:
    return "everywhere" if len(kinds) == n_kinds else ", ".join(kinds)


def _grouped(
    by_kind: Mapping[str, tuple[float | None, ...]],
) -> list[tuple[tuple[float | None, ...], list[str]]]:
    """Kinds with the same values share a line."""
    groups: dict[tuple[float | None, ...], list[str]] = {}
    for kind, values in by_kind.items():
        groups.setdefault(values, []).append(kind)
    return list(groups.items())


def _methods(matched: Mapping[_Place, Rule | None], layers: int) -> tuple[tuple[str, str], ...]:
    """(where, method), runs of layers joined."""
    names = {place: _method(rule) if rule else "by tensor name" for place, rule in matched.items()}
    if all(rule is None for rule in matched.values()):
        return ()
    if len(set(names.values())) == 1:
        return (("", next(iter(names.values()))),)
    found: list[tuple[str, str]] = []
    for kind in _LAYERED:
        for method, run in groupby(range(layers), key=lambda layer: names[kind, layer]):
            span = list(run)
            ends = f"{span[0]}" if len(span) == 1 else f"{span[0]}\N{EN DASH}{span[-1]}"
            found.append((f"{kind} {ends}", method))
        if not layers:
            found.append((kind, names[kind, None]))
    return tuple(found + [(place[0], names[place]) for place in names if place[0] in _OUTSIDE])


def _method(rule: Rule) -> str:
    return " + ".join((rule.method, *rule.modifiers))


def _cell(value: float | None, limit: float) -> HeatCell:
    return HeatCell(value, abs(value) / limit if value is not None and limit else 0.0)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def _plain_text(value: object) -> str:
    number = _number(value)
    return str(value).lower() if number is None else f"{number:.4g}"


def _plain(value: object) -> object:
    """Copy nested mappings and sequences into the dicts and lists that YAML writes."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
