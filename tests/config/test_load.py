from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from evomerge.config.experiment import Experiment
from evomerge.config.load import dump_experiment, experiment_digest, load_experiment
from evomerge.config.overrides import apply_overrides
from evomerge.config.presets import PRESET_KINDS, Presets, purpose
from evomerge.errors import ConfigError
from evomerge.schema import parse

QUICKSTART = Presets().names("experiments")["quickstart"]


def write(folder: Path, content: object) -> Path:
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def minimal() -> dict[str, object]:
    return {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math"}},
        "search_space": "global_linear",
        "evaluators": ["zoo"],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
    }


def test_a_resolved_experiment_reads_back_as_itself(tmp_path: Path) -> None:
    experiment = load_experiment(QUICKSTART, Presets())
    again = load_experiment(write(tmp_path, yaml.safe_load(dump_experiment(experiment))), Presets())
    assert again == experiment
    assert isinstance(experiment.search_space, dict)


def test_the_digest_ignores_how_much_and_where(tmp_path: Path) -> None:
    base = load_experiment(QUICKSTART, Presets())
    more = load_experiment(QUICKSTART, Presets(), ["budget.trials=7", "execution.workers=1"])
    other = load_experiment(QUICKSTART, Presets(), ["seed=1"])
    assert experiment_digest(base) == experiment_digest(more) != experiment_digest(other)


def test_relative_paths_start_at_the_file_that_mentions_them(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "eval.yaml").write_text("tasks: [t]\ninclude_path: tasks\n")
    content = minimal() | {"evaluators": ["sub/eval.yaml"]}
    content["models"] = {"base": "m", "experts": {"a": "zoo:math"}}
    experiment = load_experiment(write(tmp_path, content), Presets())
    assert experiment.models.base == str(tmp_path / "m")
    evaluator = experiment.evaluators[0]
    assert not isinstance(evaluator, str)
    assert evaluator.include_path == str(tmp_path / "sub" / "tasks")


def test_presets_of_the_user_win_over_ours(tmp_path: Path) -> None:
    (tmp_path / "search_spaces").mkdir()
    (tmp_path / "search_spaces" / "global_linear.yaml").write_text(
        "# mine\nmethod: linear\ngenes: {}\n"
    )
    experiment = load_experiment(write(tmp_path, minimal()), Presets(tmp_path))
    assert experiment.search_space == {"method": "linear", "genes": {}}


def test_all_faults_are_reported_at_once(tmp_path: Path) -> None:
    content = minimal() | {
        "sampelr": "auto",
        "seed": "many",
        "budget": {"trials": 0, "wall_clock": "soon"},
        "objectives": [],
    }
    content["models"] = {"base": "zoo:base", "experts": {}}
    with pytest.raises(ConfigError) as error:
        load_experiment(write(tmp_path, content), Presets())
    text = str(error.value)
    assert "sampelr: unknown key; did you mean 'sampler'?" in text
    for key in ("seed", "budget.trials", "budget.wall_clock", "objectives", "models.experts"):
        assert f": {key}: " in text
    assert len(error.value.faults) == 6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"search_space": "layer_wise_ties"}, "did you mean 'layerwise_ties'"),
        ({"search_space": "mine.yaml"}, "found none"),
        ({"evaluators": ["zo"]}, "did you mean 'zoo'"),
        (
            {"models": {"base": "zoo:base", "experts": {"merged": "zoo:math"}}},
            "an expert name other than base, merged, skip, uniform, got 'merged'",
        ),
    ],
)
def test_wrong_names_are_explained(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    with pytest.raises(ConfigError, match=expected):
        load_experiment(write(tmp_path, minimal() | change), Presets())


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "\x00"])
def test_files_that_are_no_experiment_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        load_experiment(file, Presets())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h 30m", 5400), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    content = minimal() | {"budget": {"wall_clock": int(text) if text.isdigit() else text}}
    assert parse(Experiment, content).budget.wall_clock == seconds


def test_overrides_change_single_keys() -> None:
    content = minimal() | {"sampler": "auto"}
    changed = apply_overrides(
        content, ["budget.trials=7", "sampler.popsize=8", "objectives.0.metric=acc", "seed=3"]
    )
    assert changed["budget"] == {"trials": 7}
    assert changed["sampler"] == {"name": "auto", "popsize": 8}
    assert changed["objectives"] == [{"task": "zoo_math", "metric": "acc"}]
    assert content["objectives"] == [{"task": "zoo_math", "metric": "exact_match"}]


@pytest.mark.parametrize("override", ["seed", "=3", "seed.x=1", "objectives.5.metric=a"])
def test_wrong_overrides_are_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        apply_overrides(minimal() | {"seed": 0}, [override])


@pytest.mark.parametrize("kind", PRESET_KINDS)
def test_every_preset_says_what_it_is_for(kind: str) -> None:
    files = Presets().names(kind)  # type: ignore[arg-type]
    assert files
    assert all(len(purpose(file)) > 20 for file in files.values())


@pytest.mark.parametrize(
    ("written", "read"),
    [("auto", "auto"), ("off", "off"), (False, "off"), ("30m", 1800.0), (90, 90.0)],
)
def test_a_limit_of_trials_is_a_duration_or_a_word(written: object, read: object) -> None:
    content = minimal() | {"execution": {"trial_timeout": written}}
    found = parse(Experiment, content)
    assert found.execution.trial_timeout == read
    again = parse(Experiment, {**content, **found.model_dump(include={"execution"}, mode="json")})
    assert again == found


def test_a_limit_of_trials_that_is_neither_says_what_there_is() -> None:
    content = minimal() | {"execution": {"trial_timeout": "soon"}}
    with pytest.raises(ConfigError, match="expected auto, off, or a duration such as 90s"):
        parse(Experiment, content)


def test_an_objective_goes_the_way_of_its_own_suites_metric(tmp_path: Path) -> None:
    judge = {"url": "http://x/v1", "model": "m", "prompt": "", "scale": [0, 1], "samples": 2}
    suites = [
        {
            "tasks": ["a", "group"],
            "metrics": {"length": {"file": "m.py", "higher_is_better": False}},
        },
        {"tasks": ["b"], "metrics": {"length": {"file": "m.py"}, "good": {"judge": judge}}},
    ]
    wanted = {
        ("a", "length,first"): "minimize",
        ("b", "length"): "maximize",
        ("of_group", "length"): "minimize",
        ("b", "good"): "maximize",
        ("b", "good_noise"): "minimize",
    }
    objectives = [{"task": task, "metric": metric} for task, metric in wanted]
    path = write(tmp_path, {**minimal(), "evaluators": suites, "objectives": objectives})
    found = load_experiment(path, Presets()).objectives
    assert {(o.task, o.metric): o.direction for o in found} == wanted
