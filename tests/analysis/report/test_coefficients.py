from __future__ import annotations

import random

import yaml

from evomerge.analysis.report.coefficients import PathHop, Row, view_recipe
from evomerge.recipe.path import Hop, path_data

from ..synthetic import layerwise_recipe

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}


def recipe(*rules: dict[str, object]) -> dict[str, object]:
    return {"base": "zoo:base", "experts": EXPERTS, "rules": list(rules)}


def rule(where: dict[str, object], method: str = "ties", **parameters: object) -> dict[str, object]:
    return {"where": where, "method": method, "parameters": parameters}


def values(row: Row) -> list[float | None]:
    return [cell.value for cell in row.cells]


def test_first_matching_rule_wins() -> None:
    view = view_recipe(
        recipe(
            rule({"layers": [0, 2], "kinds": ["attention"]}, coefficient={"math": 0.1, "list": 1}),
            rule({"layers": [0, 4]}, coefficient={"math": 0.2, "list": 2}),
            rule({}, coefficient={"math": 0.3, "list": 3}),
        )
    )
    (panel,) = view.panels
    assert panel.layers == 4
    rows = {(row.expert, row.kinds): values(row) for row in panel.rows}
    assert rows["math", "attention"] == [0.1, 0.1, 0.2, 0.2]
    assert rows["math", "mlp, norm"] == [0.2] * 4
    assert rows["list", "attention"] == [1, 1, 2, 2]
    assert panel.limit == 2


def test_embedding_counts_with_the_first_layer_and_head_with_the_last() -> None:
    view = view_recipe(
        recipe(rule({"layers": [0, 1]}, density=0.1), rule({"layers": [1, 3]}, density=0.9))
    )
    (panel,) = view.panels
    assert {row.kinds: values(row) for row in panel.outside} == {"embedding": [0.1], "head": [0.9]}


def test_tied_embeddings_have_no_head_of_their_own() -> None:
    by_kind = [
        rule({"layers": [0, 3], "kinds": ["head"]}, "slerp", coefficient=0.9),
        rule({"layers": [0, 3], "kinds": ["embedding"]}, coefficient=0.2),
        rule({"layers": [0, 1]}, coefficient=0.1),
        rule({"layers": [1, 3]}, coefficient=0.3),
    ]
    view = view_recipe(recipe(*by_kind), has_head=False)
    (panel,) = view.panels
    assert {row.kinds: values(row) for row in panel.outside} == {"embedding": [0.2]}
    assert view.methods == (("", "ties"),)
    (panel,) = view_recipe(
        recipe(rule({}, coefficient={"math": 0.5, "list": 1.0})), has_head=False
    ).panels
    assert [row.kinds for row in panel.rows] == ["everywhere"] * 2


def test_one_rule_for_everything_needs_one_row_per_expert() -> None:
    view = view_recipe(recipe(rule({}, coefficient={"math": 0.5, "list": -1.0}, density=0.3)))
    (panel,) = view.panels
    assert [(row.expert, row.kinds) for row in panel.rows] == [
        ("math", "everywhere"),
        ("list", "everywhere"),
    ]
    assert [row.cells[0].share for row in panel.rows] == [0.5, 1.0]
    assert view.methods == (("", "ties"),)
    assert view.constants == (("density", "0.3"),)


def test_rules_by_name_are_counted_and_not_drawn() -> None:
    view = view_recipe(
        recipe(
            rule({"names": "bias"}, coefficient={"math": 9, "list": 9}),
            rule({}, coefficient={"math": 0.1, "list": 0.2}),
        )
    )
    assert view.by_name == 1
    assert view.panels[0].limit == 0.2


def test_several_methods_are_listed_by_runs_of_layers() -> None:
    view = view_recipe(
        recipe(
            rule({"layers": [0, 3]}, "ties"), rule({"layers": [3, 4]}, "slerp"), rule({}, "linear")
        )
    )
    methods = dict(view.methods)
    assert methods["attention 0\N{EN DASH}2"] == "ties"
    assert methods["mlp 3"] == "slerp"
    assert methods["embedding"] == "ties"
    assert methods["head"] == "slerp"


def test_parameter_that_a_rule_leaves_out_is_blank() -> None:
    view = view_recipe(recipe(rule({"layers": [0, 1]}, density=0.5), rule({"layers": [1, 2]})))
    assert values(view.panels[0].rows[0]) == [0.5, None]


def test_modifiers_are_named_with_the_method_and_their_parameters_shown() -> None:
    first = {**rule({"layers": [0, 1]}, "task_arithmetic"), "modifiers": {"trim": {"density": 0.2}}}
    last = {**rule({"layers": [1, 2]}, "task_arithmetic"), "modifiers": {"trim": {"density": 0.7}}}
    view = view_recipe(recipe(first, last))
    assert view.methods == (("", "task_arithmetic + trim"),)
    (panel,) = view.panels
    assert panel.parameter == "trim:density"
    assert values(panel.rows[0]) == [0.2, 0.7]


def test_recipe_without_rules_is_shown_as_yaml() -> None:
    strange = {"base": "zoo:base", "mix": [["math", 0, 1.0], ("list", 1, 0.9)]}
    view = view_recipe(strange)
    assert (view.panels, view.methods, view.constants, view.path) == ((), (), (), ())
    assert yaml.safe_load(view.yaml)["mix"] == [["math", 0, 1.0], ["list", 1, 0.9]]


def test_a_path_is_listed_layer_by_layer() -> None:
    hops = (Hop("math", 0), Hop("math", 1), Hop("merged", 1, 0.9), Hop("list", 5))
    assert view_recipe({**recipe(rule({})), "path": path_data(hops)}).path == (
        PathHop("math", 0, 1.0),
        PathHop("math", 1, 1.0),
        PathHop("merged", 1, 0.9),
        PathHop("list", 5, 1.0),
    )


def test_yaml_is_the_recipe() -> None:
    made = layerwise_recipe(random.Random(0), tuple(EXPERTS), 6)
    assert yaml.safe_load(view_recipe(made).yaml) == made
