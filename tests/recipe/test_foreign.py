"""Files that are no recipe, or no experiment, are called what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.recipe.files import load_recipe

EVOLVE = """
genome: {models: [a, b], base_model: c, merge_method: task_arithmetic, layer_granularity: 2}
tasks: [{name: zoo_math, weight: 1.0, metric: "exact_match,none"}]
"""
MOE = "base_model: a\nexperts: [{source_model: a, positive_prompts: [x]}]\n"
LINEAR = "models: [{model: zoo:math}, {model: zoo:list}]\nmerge_method: linear\n"
OURS = "experts: {m: zoo:math}\nbase: zoo:base\nmethod: linear\n"
EXPERIMENT = (
    "models: {base: zoo:base, experts: {m: zoo:math}}\nsearch_space: global_linear\n"
    "evaluators: [zoo]\nobjectives: [{task: zoo_math, metric: exact_match}]\n"
)


def as_experiment(path: Path) -> object:
    return load_experiment(path, Presets())


@pytest.mark.parametrize(
    ("read", "text", "expected"),
    [
        (
            load_recipe,
            EVOLVE,
            "expected a recipe, got a file of mergekit-evolve; 'evomerge import FILE",
        ),
        (
            as_experiment,
            EVOLVE,
            "expected an experiment, got a file of mergekit-evolve; 'evomerge import FILE",
        ),
        (load_recipe, MOE, "expected a recipe, got a file of mergekit-moe, which puts models"),
        (load_recipe, f"gate_mode: random\n{MOE}", "got a file of mergekit-moe"),
        (load_recipe, f"{LINEAR}---\n{LINEAR}", "line 3, column 1: expected one document, got ano"),
        (load_recipe, EXPERIMENT, "got an experiment; 'evomerge run FILE' searches"),
        (as_experiment, LINEAR, "got a recipe; 'evomerge merge FILE --out DIR' merges it"),
        (as_experiment, OURS, "got a recipe; 'evomerge merge FILE --out DIR' merges it"),
    ],
)
def test_other_files_are_recognised(
    read: Callable[[Path], object], text: str, expected: str, tmp_path: Path
) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        read(file)
    (line,) = map(str, error.value.faults)
    assert line.startswith(str(file))
    assert expected.replace("FILE", str(file)) in line


def test_their_own_readers_take_them(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(EXPERIMENT)
    assert as_experiment(file)
    file.write_text(OURS)
    assert load_recipe(file)
    file.write_text(
        LINEAR.replace("zoo:math}", "zoo:math, parameters: {weight: 1}}").replace(
            "zoo:list}", "zoo:list, parameters: {weight: 1}}"
        )
    )
    assert load_recipe(file)


def test_parameters_of_mergekit_outside_of_parameters_are_sent_there(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "models: [{model: zoo:math, weight: 1}, {model: zoo:list}]\nmerge_method: linear\n"
        "normalize: false\ndensity: 0.5\nint8_mask: true\ndtpye: float32\n"
    )
    with pytest.raises(ConfigError) as error:
        load_recipe(file)
    belongs = "unknown key here, which mergekit ignores; it belongs under parameters"
    assert sorted(map(str, error.value.faults)) == [
        f"{file}:1: models[0].weight: {belongs}",
        f"{file}:3: normalize: {belongs}",
        f"{file}:4: density: unknown key, which mergekit ignores here, and linear everywhere; "
        "remove it",
        f"{file}:5: int8_mask: {belongs}",
        f"{file}:6: dtpye: unknown key; did you mean 'dtype'?",
    ]
