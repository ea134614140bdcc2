"""A study of ensembles: searched, resumed, scored as `evaluate` scores them, not exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import evomerge
from evomerge.cli import searching
from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.ensembles.file import load_ensemble
from evomerge.errors import ConfigError
from evomerge.execution.protocol import Job, Scored
from evomerge.execution.worker import Worker
from evomerge.merging.sources import Sources
from evomerge.models.opening import peek_model
from evomerge.runs.cost import device_plans
from evomerge.runs.loaded import Loaded
from evomerge.runs.memory_plan import DevicePlan

TASKS = str(Presets().names("evaluators")["zoo"].parent / "tasks")
SPLITS = {"search": "search", "validation": "validation", "test": "test"}
ZOO = {"tasks": ["zoo_list", "zoo_facts"], "include_path": TASKS, "splits": SPLITS, "limit": 3}
KEYS: dict[str, Any] = {
    "models": {"base": "zoo:base", "experts": {"facts": "zoo:facts", "list": "zoo:list"}},
    "search_space": {"kind": "ensemble"},
    "evaluators": [ZOO],
    "objectives": [
        {"task": "zoo_facts", "metric": "acc_norm"},
        {"task": "zoo_list", "metric": "exact_match"},
        *({"cost": name} for name in ("forwards", "hops", "parameters")),
    ],
    "sampler": "random",
    "budget": {"trials": 5},
    "finalists": 0,
    "execution": {"executor": "inline"},
}


def test_a_study_of_ensembles_is_searched_and_resumed(tmp_path: Path) -> None:
    before = evomerge.run(KEYS, tmp_path / "study").trials
    study = evomerge.resume(tmp_path / "study", set=["budget.trials=6"])
    assert [trial.values for trial in study.trials[:5]] == [trial.values for trial in before]
    assert {trial.state for trial in study.trials} == {"complete"}
    by_origin = {trial.origin: trial for trial in study.trials}
    n_parameters = by_origin["base"].values[4]
    for origin in ("expert:list", "uniform"):  # in the space, and not in it
        assert by_origin[origin].values[2:] == (1, 6, n_parameters)
    found = study.trials[-1]
    assert found.values[2:] == (2, 12, 2 * n_parameters)

    mix = found.recipe["ensemble"]
    assert isinstance(mix, dict)
    names, weights = [f"zoo:{name}" for name in mix["weights"]], [*mix["weights"].values()]
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump(ZOO))
    scores = evomerge.evaluate(
        {"ensemble": {"models": names, "weights": weights}},
        evaluators=str(tmp_path / "zoo.yaml"),
        split="search",
    ).set_index(["task", "metric"])["value"]
    assert found.values[0] == pytest.approx(scores["zoo_facts", "acc_norm"])
    assert found.values[1] == pytest.approx(scores["zoo_list", "exact_match"])

    for kind in ("hf", "mergekit", "lora"):
        out = ["--pick", "trial:5", "--format", kind, "--out", str(tmp_path / kind)]
        refused = CliRunner().invoke(app, ["export", str(tmp_path / "study"), *out])
        (line,) = str(refused.exception).splitlines()
        assert "which no one checkpoint holds; 'evomerge evaluate FILE' scores it, with " in line
        assert "{models: [zoo:facts, zoo:list], by: probabilities, weights: [0." in line
        assert not (tmp_path / kind).exists()
    page = CliRunner().invoke(app, ["report", str(tmp_path / "study")])
    assert page.exit_code == 0, page.output
    text = (tmp_path / "study" / "report.html").read_text()
    assert "Best ensemble" in text or "No ensemble" in text
    assert "erge 5" not in text


def test_what_the_end_of_a_run_proposes_for_an_ensemble_can_be_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = [{"cost": "forwards", "direction": "maximize"}]  # ensembles alone are best
    keys = {**KEYS, "objectives": objective, "finalists": 1, "budget": {"trials": 5}}
    searching._print_end(evomerge.run(keys, tmp_path / "study"))
    printed = capsys.readouterr().out
    assert "best ensemble (#" in printed
    assert "merge (#" not in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("evaluate "))
    file = tmp_path / "ensemble.yaml"
    file.write_text(line.partition("with the chosen ")[2].removesuffix(" in FILE"))
    assert len(load_ensemble(file).models) == 2


def test_batches_do_not_depend_on_what_answered_before() -> None:
    """A lone model keeps less for a prompt than several: batches are planned for all of them."""
    loaded = Loaded.of(evomerge.Experiment.from_dict(KEYS))
    digests = set()
    for recipe in (loaded.seeds[0].recipe, loaded.space.recipe(loaded.space.defaults)):
        worker = Worker(loaded.worker)
        for split in ("search", "test"):
            outcome = worker.run(Job(0, recipe, split))
            assert isinstance(outcome, Scored)
        digests.add(worker._prepared["test"].digest)
    assert len(digests) == 1


def test_each_model_of_an_ensemble_keeps_keys_and_values() -> None:
    plans = list[DevicePlan]()
    for space in ({"kind": "ensemble"}, "global_linear"):
        found = Loaded.of(evomerge.Experiment.from_dict({**KEYS, "search_space": space}))
        plans += device_plans(found, Sources.of(found.models, open_full=peek_model))
    together, alone = plans
    assert together.live == 3 * alone.live
    assert together.scoring > alone.scoring


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objectives": [{"cost": "distance"}]}, "expected a space of merges, got ensembles"),
        ({"engine": {"name": "transformers", "quantize": "int8"}}, "models are not quantized"),
        ({"execution": {"gpus_per_worker": 2}}, "whose models are not spread"),
    ],
)
def test_what_ensembles_cannot_be_is_said_before_anything_runs(
    changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigError) as found:
        Loaded.of(evomerge.Experiment.from_dict({**KEYS, **changes}))
    assert any(expected in str(fault) for fault in found.value.faults)
