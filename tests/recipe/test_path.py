from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import ConfigError
from evomerge.recipe.files import dump_recipe, recipe_from_data
from evomerge.recipe.path import Hop, cumulative_scales, path_data
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.schema import parse_yaml

EXPERTS = {"math": "zoo:math", "list": "zoo:list"}
HOPS = st.builds(
    Hop,
    source=st.sampled_from(["base", "merged", *EXPERTS]),
    layer=st.integers(0, 3),  # few, so that runs are common
    scale=st.just(1.0) | st.floats(0.8, 1.25),
)
RULES = (Rule("ties"),)


@given(path=st.lists(HOPS, max_size=20).map(tuple))
def test_yaml_round_trip_is_the_identity(path: tuple[Hop, ...]) -> None:
    recipe = Recipe(EXPERTS, RULES, base="zoo:base", path=path)
    again = recipe_from_data(parse_yaml(dump_recipe(recipe)))
    assert again == recipe
    assert again.digest == recipe.digest


def test_runs_of_layers_are_written_as_ranges() -> None:
    content = [
        {"source": "math", "layers": [0, 3]},
        {"source": "math", "layer": 2},
        {"source": "merged", "layer": 3, "scale": 0.5},
        {"source": "list", "layers": [4, 6]},
    ]
    recipe = recipe_from_data({"experts": EXPERTS, "method": "linear", "path": content})
    assert [(hop.source, hop.layer) for hop in recipe.path] == [
        ("math", 0), ("math", 1), ("math", 2), ("math", 2), ("merged", 3), ("list", 4), ("list", 5),
    ]  # fmt: skip
    assert path_data(recipe.path) == content
    assert cumulative_scales(recipe.path) == (1, 1, 1, 1, 0.5, 0.5, 0.5)
    assert recipe.hops(n_layers=32) == 7


def test_a_recipe_without_a_path_is_written_as_before() -> None:
    plain = Recipe(EXPERTS, RULES, base="zoo:base")
    assert "path" not in plain.as_data()
    assert plain.hops(n_layers=32) == 32
    assert plain.digest == "84a01eb558e18c80"


def test_the_digest_depends_on_the_path() -> None:
    paths = [(), (Hop("math", 0),), (Hop("math", 0, 1.5),), (Hop("math", 0), Hop("math", 0))]
    assert len({Recipe(EXPERTS, RULES, base="b", path=path).digest for path in paths}) == 4


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([{"source": "code", "layer": 0}], "path[0].source: expected one of math, list, merged"),
        ([{"source": "base", "layer": 0}], "path[0].source: expected one of math, list, merged"),
        ([{"source": "math", "layer": -1}], "path[0].layer: expected a layer from 0, got -1"),
        ([{"source": "math", "layer": 0, "scale": 0}], "path[0].scale: expected a finite number"),
        ([{"source": "math", "layer": 0, "scale": float("nan")}], "path[0].scale: expected"),
        ([{"source": "math", "layers": [2, 2]}], "first < end, got {'source': 'math', 'layers'"),
        ([{"source": "math", "layers": [0, 2], "layer": 1}], "expected layer: N, or layers:"),
        ([{"source": "math", "layr": 2}], "layr: unknown key; did you mean 'layer'?"),
        ([{"source": "math", "layer": 0, "scale": 8}] * 3, "got 512 at hop 2"),
        ([{"source": "math", "layer": 0, "scale": 0.1}] * 3, "got 0.001 at hop 2"),
        ("math", "path: expected a list, got 'math'"),
    ],
)
def test_faults_are_named(path: object, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        recipe_from_data({"experts": EXPERTS, "method": "linear", "path": path})
    assert expected in str(error.value)


def test_names_of_experts_keep_clear_of_the_path_s_own() -> None:
    content = {"experts": {"merged": "zoo:math"}, "method": "linear"}
    recipe_from_data(content)
    with pytest.raises(ConfigError, match="expected another name than 'merged'"):
        recipe_from_data({**content, "path": [{"source": "merged", "layer": 0}]})
