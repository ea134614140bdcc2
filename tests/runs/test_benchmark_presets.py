"""Presets of public benchmarks and Hub models, held against the installed lm-eval, offline.

Neither data nor models can be had here: names, splits and metrics are those of lm-eval's task
files, and spaces are tried on tiny models of the same architecture.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from evomerge.config.experiment import Experiment
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.evaluation.harness import BUILTIN_TASKS
from evomerge.evaluation.index import leaf_tasks
from evomerge.evaluation.suite import Suite
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.runs.parts import build_space, load_suites, make_suites
from evomerge.schema import read_yaml
from evomerge.space.protocol import ModelSet
from tests import vision_language
from tests.architectures import tiny_model

PRESETS = Presets()
FOLDERS = (
    *("gsm8k", "minerva_math", "benchmarks", "mbpp", "japanese_leaderboard", "mmlu/default"),
    *("arc", "hellaswag", "winogrande", "okapi/arc_multilingual", "ifeval", "toxigen", "aime"),
    "mgsm/direct",
)
EVALUATORS = sorted(
    name
    for name, file in PRESETS.names("evaluators").items()
    if "include_path" not in read_yaml(file)
)
FAMILIES = {
    "evollm_jp": "mistral",
    "evollm_jp_merge": "mistral",
    "llama3_japanese_math": "llama",
    "mergebench_gemma2b": "gemma2",
    "mergebench_llama3b": "llama_tied",
    "qwen3_thinking": "qwen3",
    "qwen_math_code": "qwen2",
    "qwen_vl_text": "qwen2_5_vl",
}
UNUSED = {"mmlu": {"validation"}, "mbpp": {"train", "validation"}}  # dataset cards list them
# Benchmarks without enough other items: an experiment must allow to search them.
SINGLE = {"ifeval", "aime24", "mgsm_direct_ja"}


@pytest.fixture(scope="module")
def registry() -> TaskManager:
    """lm-eval's own index of the folders in question; of all of them it takes seconds."""
    folders = [str(BUILTIN_TASKS / folder) for folder in FOLDERS]
    return TaskManager(include_path=folders, include_defaults=False)


def tasks_of(registry: TaskManager, name: str) -> dict[str, dict]:
    """Return the settings of the tasks that a name stands for."""
    assert name in registry.all_tasks
    found = leaf_tasks(registry, [name], {})
    assert found
    return {n: load_yaml(registry.task_index[n].yaml_path, resolve_func=False) for n in found}


def experiment_of(name: str) -> Experiment:
    return load_experiment(PRESETS.names("experiments")[name], PRESETS)


def check_suite(suite: Suite, registry: TaskManager, *, allowed: bool) -> None:
    """Hold splits against the task: of its own, and none by which it is reported is searched."""
    assert suite.faults() == []
    for name in suite.tasks:
        for task in tasks_of(registry, name).values():
            reported = task.get("test_split") or task["validation_split"]
            own = {task.get(f"{kind}_split") for kind in ("training", "validation", "test")}
            own |= UNUSED.get(name, set())
            named = {split for split in suite.splits.values() if isinstance(split, str)}
            assert named <= own
            searched = suite.splits.get("search")
            is_safe = searched is None or (isinstance(searched, str) and searched != reported)
            assert is_safe or (name in SINGLE and allowed)


@pytest.mark.parametrize("name", EVALUATORS)
def test_suites_name_tasks_of_lm_eval_and_splits_that_may_be_searched(name, registry):
    (suite,) = load_suites([name], PRESETS, Path.cwd())
    check_suite(suite, registry, allowed="allow_test_split" in _text("evaluators", name))


@pytest.mark.parametrize("name", EVALUATORS)
def test_suites_say_which_metrics_their_tasks_have(name, registry):
    for task, metric in _objectives(_text("evaluators", name)):
        assert metric.removesuffix(",none") in metrics_of(registry, task)


@pytest.mark.parametrize("name", FAMILIES)
def test_experiments_search_what_may_be_searched(name, registry):
    experiment = experiment_of(name)
    for suite in make_suites(experiment):
        check_suite(suite, registry, allowed=experiment.allow_test_split)
    repeats = {t: s.repeats for s in make_suites(experiment) for t in s.tasks}
    searched = {t for s in make_suites(experiment) if not s.report_only for t in s.tasks}
    for objective in experiment.objectives:
        if objective.task != "cost":
            assert objective.task in searched
            known = metrics_of(registry, objective.task, repeats[objective.task])
            assert objective.metric in known
    assert not any(suite.allow_code for suite in make_suites(experiment))


@pytest.mark.parametrize(("name", "family"), FAMILIES.items())
def test_spaces_of_experiments_fit_their_architecture(name, family, tmp_path):
    experiment = experiment_of(name)
    paths = ["base", *experiment.models.experts]
    for seed, path in enumerate(paths):
        written(family, tmp_path / path, seed)
    experts = {n: str(tmp_path / n) for n in experiment.models.experts}
    models = ModelSet(str(tmp_path / "base"), experts, n_layers=3)
    assert isinstance(experiment.search_space, dict)
    space = build_space(experiment.search_space, models)
    recipe = space.recipe(space.defaults)
    assert recipe.faults() == []
    candidate = LiveCandidate(Sources(models.base, experts))
    candidate.materialise(replace(recipe, seed=1))
    tokens = torch.tensor([[3, 4, 5]])
    assert candidate.model(tokens).logits.isfinite().all()


def written(family: str, folder: Path, seed: int) -> None:
    """Write a model; experts of one of vision and language are language models alone."""
    if family not in vision_language.FAMILIES:
        tiny_model(family, folder, seed)
    elif folder.name == "base":
        vision_language.vlm(folder, family, seed)
    else:
        vision_language.text_model(folder, family, seed)


def test_the_thinking_experiment_has_a_gene_for_each_of_36_layers():
    experiment = experiment_of("qwen3_thinking")
    models = ModelSet("base", {"thinking": "expert"}, n_layers=36)
    space = build_space(experiment.search_space, models)
    assert len(space.distributions) == 36
    assert experiment.budget.trials == 48


def metrics_of(registry: TaskManager, name: str, repeats: int | None = None) -> set[str]:
    """Name the metrics of a task or group as ours do: the metric, and the filter before it."""
    found = []
    for task in tasks_of(registry, name).values():
        filters = _filters(task)
        if repeats and "filter_list" not in task:
            filters += [f"{way}@{repeats}" for way in ("mean", "maj", "pass")]
        pairs = [f"{metric},{one}" for metric in _names(task) for one in filters]
        found.append({pair.removesuffix(",none") for pair in pairs})
    return set.intersection(*found)


def _names(task: dict) -> list[str]:
    return [str(entry["metric"]).rpartition(".")[2] for entry in task["metric_list"]]


def _filters(task: dict) -> list[str]:
    return [entry["name"] for entry in task.get("filter_list", [{"name": "none"}])]


def _text(kind: str, name: str) -> str:
    return PRESETS.names(kind)[name].read_text(encoding="utf-8")  # type: ignore[arg-type]


def _objectives(text: str) -> list[tuple[str, str]]:
    found = re.findall(r'\{task: (\w+), metric: "([^"]+)"\}', text)
    assert found
    return found
