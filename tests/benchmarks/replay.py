"""Time per candidate: merge and replay, against merge and ``simple_evaluate``, one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from evomerge.config.assemble import load_suites
from evomerge.config.presets import Presets
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe, Rule

_REPEATS = 7
_EXPERTS = {name: f"zoo:{name}" for name in ("math", "list", "facts")}


def run() -> str:
    """Measure on the embedded models; returns one line."""
    torch.set_num_threads(1)
    sources = Sources("zoo:base", _EXPERTS)
    candidate = LiveCandidate(sources)
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.folder)
    suites = load_suites(["zoo"], Presets(), Path.cwd())
    prepared = PreparedSuites(suites, "search", candidate.model, tokenizer)
    lm = HFLM(pretrained=candidate.model, tokenizer=tokenizer, batch_size=suites[0].batch_size)
    configs = _task_configs()
    index = TaskManager(include_defaults=False)  # the default one takes seconds, once

    def replayed(recipe: Recipe) -> None:
        candidate.materialise(recipe)
        prepared.score()

    def rebuilt(recipe: Recipe) -> None:
        candidate.materialise(recipe)
        with redirect_stderr(StringIO()):
            lm_eval.simple_evaluate(model=lm, tasks=configs, task_manager=index, bootstrap_iters=0)

    ours, theirs = _median_seconds(replayed), _median_seconds(rebuilt)
    n_items = sum(len(task.items) for task in prepared.tasks)
    return (
        f"candidate on the zoo, {n_items} items: {ours:.2f} s; with simple_evaluate "
        f"{theirs:.2f} s; ratio {theirs / ours:.1f}"
    )


def _task_configs() -> list[dict[str, object]]:
    folder = Presets().names("evaluators")["zoo"].parent / "tasks"
    configs = []
    for file in sorted(folder.rglob("*.yaml")):
        config = yaml.safe_load(file.read_text())
        files = config["dataset_kwargs"]["data_files"]
        config["dataset_kwargs"]["data_files"] = {k: str(file.parent / v) for k, v in files.items()}
        configs.append({**config, "test_split": "search"})
    return configs


def _median_seconds(score: Callable[[Recipe], None]) -> float:
    seconds = []
    for i in range(_REPEATS + 1):
        rule = Rule("task_arithmetic", {"coefficient": 0.3 + 0.05 * i})
        start = time.perf_counter()
        score(Recipe(_EXPERTS, (rule,), base="zoo:base"))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])  # the first one warms up


if __name__ == "__main__":
    print(run())
