"""The main job through the command line, on the embedded models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from evomerge.analysis.front import front
from evomerge.analysis.intervals import difference, mean
from evomerge.analysis.picking import pick
from evomerge.merging.folder import write_checkpoint
from evomerge.origins import is_single_model
from evomerge.recipe.files import stored_recipe
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.e2e.command import evomerge


@pytest.fixture(scope="module")
def finished(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study run to the end on two Ray workers."""
    folder = tmp_path_factory.mktemp("study") / "run"
    done = evomerge("run", experiment, "--dir", folder, "--workers", 2)
    assert "best merge" in done.stdout
    return folder


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole quickstart."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    evomerge("run", "quickstart", "--dir", folder)
    return folder


def test_the_budget_is_met_and_everything_is_there(finished: Path) -> None:
    status = json.loads(evomerge("status", finished, "--json").stdout)
    complete = status["trials"].pop("complete")
    assert status["trials"] == {"failed": 0, "running": 0, "pruned": 0}
    assert complete + status["climbed"] > 6  # base, experts, average, and more
    assert 11 < status["evaluations"] <= 12
    assert status["hypervolume"] > 0
    assert {"ask", "merge", "evaluate", "tell", "idle"} <= status["seconds"].keys()
    assert (finished / "report.html").stat().st_size > 100_000
    study = read_study(StudyFolder(finished))
    assert [t.origin for t in study.trials[:2]] == ["base", "expert:math"]
    assert {f.split for f in study.finals} == {"validation", "test"}


def test_the_front_as_json_is_one_document(finished: Path) -> None:
    front = json.loads(evomerge("front", finished, "--json").stdout)
    assert [o["name"] for o in front["objectives"]] == ["zoo_math", "zoo_list", "zoo_facts"]
    for trial in front["trials"]:
        assert len(trial["values"]) == len(trial["stderr"]) == 3
        assert trial["recipe"]["base"] == "zoo:base"


PLAIN = """
import json, sys
import transformers
transformers.utils.logging.disable_progress_bar()
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
import yaml, pathlib
import torch
torch.set_num_threads(1)
tasks = []
for file in sorted(pathlib.Path(sys.argv[2]).rglob("zoo_*.yaml")):
    config = yaml.safe_load(file.read_text())
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"]["data_files"] = {k: str(file.parent / v) for k, v in files.items()}
    config["test_split"] = "search"
    tasks.append(config)
results = lm_eval.simple_evaluate(
    model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64, device="cpu"),
    tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0,
)["results"]
assert "evomerge" not in sys.modules
numbers = {t: {k: v for k, v in r.items() if isinstance(v, float)} for t, r in results.items()}
print("RESULTS" + json.dumps(numbers))
"""


def test_the_export_is_an_ordinary_model_that_scores_what_the_trial_scored(
    quickstart: Path, tmp_path: Path
) -> None:
    """Whole search items: plain transformers and lm-eval, in a process without evomerge."""
    from evomerge.config.presets import Presets

    out = evomerge("export", quickstart, "--pick", "knee", "--out", tmp_path / "model").stdout
    assert "exported" in out
    tasks = Presets().names("evaluators")["zoo"].parent / "tasks"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "model"), str(tasks)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    results = json.loads(done.stdout.split("RESULTS")[1])
    study = read_study(StudyFolder(quickstart))
    trial = pick(study, "knee")
    for objective, value in zip(study.objectives, trial.values, strict=True):
        metrics = results[objective.task]
        assert metrics[f"{objective.metric},none"] == value


def test_an_exported_recipe_is_merged_into_the_bytes_of_its_trial(
    finished: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    evomerge("export", finished, "--format", "recipe", "--pick", "knee", "--out", recipe)
    evomerge("merge", recipe, "--out", tmp_path / "merged")
    trial = pick(read_study(StudyFolder(finished)), "knee")
    write_checkpoint(stored_recipe(trial.recipe, trial.number), tmp_path / "trial")
    merged = (tmp_path / "merged" / "model.safetensors").read_bytes()
    assert merged == (tmp_path / "trial" / "model.safetensors").read_bytes()


def test_the_demo_beats_every_parent_by_two_standard_errors(quickstart: Path) -> None:
    """Its winner against the best expert and the uniform average."""
    finals = [f for f in read_study(StudyFolder(quickstart)).finals if f.split == "test"]
    scores = {f.origin: mean(f.values, f.stderr) for f in finals}
    winner = next(mean(f.values, f.stderr) for f in finals if f.chosen)
    experts = [s for origin, s in scores.items() if origin.startswith("expert:")]
    for rival in (max(experts, key=lambda s: s.value), scores["uniform"]):
        gap = difference(winner, rival)
        assert gap.value > 2 * gap.stderr


def test_every_merge_of_the_front_is_exported_as_asked(finished: Path, tmp_path: Path) -> None:
    form = ("--dtype", "float32", "--max-shard-size", "1MB")
    evomerge("export", finished, "--pick", "front", "--out", tmp_path / "all", *form)
    study = read_study(StudyFolder(finished))
    merges = [t.number for t in front(study) if not is_single_model(t.origin)]
    folders = sorted((tmp_path / "all").iterdir())
    assert sorted(folder.name for folder in folders) == sorted(f"trial-{n}" for n in merges)
    for folder in folders:
        shards = list(folder.glob("model-*.safetensors"))
        assert len(shards) > 1
        tensors = {k: t for shard in shards for k, t in load_file(shard).items()}
        assert {t.dtype for t in tensors.values()} == {torch.float32}
