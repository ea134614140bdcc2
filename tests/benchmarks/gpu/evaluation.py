"""Tokens per second of evaluation, against bare forward passes and ``lm_eval.simple_evaluate``.

A prefill-bound task scores choices after long prompts, a decode-bound one generates. Both run on
random models of 1.5B parameters and on the embedded ones, whose weights are real.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.suite import Suite
from evomerge.merging.candidate import load_model
from evomerge.models.zoo import zoo_path
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.families import saved_family

__all__ = ["TASKS", "run", "scored_suite"]

TASKS = Path(__file__).parents[3] / "evaluators" / "tasks"

_ITEMS = {False: 128, True: 2}
_ANSWER_TOKENS = {False: 64, True: 2}
_LONGER = {False: 16, True: 1}  # times, that a question is written out
_LM_EVAL_BATCH = 64
_SPARE_S = 25.0  # for one more model or task


def run(bench: Bench) -> None:
    """Measure both tasks on both models; the large one first."""
    with saved_family(bench, experts=()) as family:
        model = load_model(family.base, torch.bfloat16).to(bench.device)
        _measure_model(bench, "1.5B", model, family.base)
    del model
    folder = str(zoo_path("base"))
    _measure_model(bench, "embedded", load_model(folder, "auto").to(bench.device), folder)


def _measure_model(bench: Bench, name: str, model: PreTrainedModel, folder: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for task in bench.in_time(("prefill", "decode"), _SPARE_S):
        with bench.part(f"{task} on {name}"):
            _measure(bench, f"{task} on {name}", task, model, tokenizer)


def _measure(
    bench: Bench, what: str, task: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        suite = scored_suite(bench, task, Path(folder))
        prepared = PreparedSuites.of([suite], "search", model, tokenizer)
        prepared.score()  # warms up
        ours_s = bench.wall_s(prepared.score, repeats=3)
        with _forward_s(bench, model) as forward:
            scores = prepared.score()
        theirs_s, theirs = _simple_evaluate(
            bench, Path(folder) / f"{task}.yaml", prepared, model, tokenizer
        )
    tokens = _prompt_tokens(prepared, tokenizer) if task == "prefill" else _answer_tokens(scores)
    kind = "prompts and choices" if task == "prefill" else "generated"
    bench.measured(f"{what}: {kind}", tokens / ours_s, "tokens/s", note=f"{tokens} tokens")
    bench.measured(f"{what}: time, of its forward passes", ours_s / sum(forward))
    bench.measured(f"{what}: simple_evaluate takes", theirs_s / ours_s, "times")
    (metric, value), *_ = scores.metrics[task].items()
    bench.measured(f"{what}: {metric}, off from simple_evaluate", abs(value.value - theirs[metric]))


def _prompt_tokens(prepared: PreparedSuites, tokenizer: PreTrainedTokenizerBase) -> int:
    """Count all that is to be read, whether prompts share it or not."""
    requests = [r for task in prepared.tasks for item in task.items for r in item.requests]
    return sum(len(tokenizer("".join(request.args)).input_ids) for request in requests)


def _answer_tokens(scores: Scores) -> int:
    metric = scores.items[0].metric
    return sum(item.tokens for item in scores.items if item.metric == metric)


def scored_suite(bench: Bench, task: str, folder: Path) -> Suite:
    """Write one task with questions, or answers, as long as those of usual benchmarks."""
    name = {"prefill": "zoo_facts", "decode": "zoo_math"}[task]
    (file,) = (TASKS / name).glob("*.yaml")
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"]["data_files"] = {k: str(file.parent / v) for k, v in files.items()}
    config |= {"task": task, "test_split": "search"}
    if task == "prefill":
        config["doc_to_text"] = f"{{{{(prompt + ' ') * {_LONGER[bench.is_dry]}}}}}"
    else:
        config["generation_kwargs"] |= {"max_gen_toks": _ANSWER_TOKENS[bench.is_dry]}
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    splits = {"search": "search"}
    return Suite(task, (task,), include_path=folder, splits=splits, limit=_ITEMS[bench.is_dry])


@contextmanager
def _forward_s(bench: Bench, model: PreTrainedModel) -> Iterator[list[float]]:
    """Collect the seconds of every forward pass, waited for; the time in between is ours."""
    started: list[float] = []
    seconds: list[float] = []

    def now() -> float:
        bench.synchronize()
        return time.perf_counter()

    handles = [
        model.register_forward_pre_hook(lambda *_: started.append(now())),
        model.register_forward_hook(lambda *_: seconds.append(now() - started.pop())),
    ]
    yield seconds
    for handle in handles:
        handle.remove()


def _simple_evaluate(
    bench: Bench,
    file: Path,
    prepared: PreparedSuites,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[float, dict[str, Any]]:
    """Score the same items; returns seconds and the metrics of the task."""
    (task,) = prepared.tasks
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    samples = {task.name: [item.row for item in task.items]}
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=_LM_EVAL_BATCH)
    index = TaskManager(include_defaults=False)  # the default one takes seconds, once
    results: list[dict[str, Any]] = []

    def evaluate() -> None:
        with redirect_stderr(StringIO()):
            found = lm_eval.simple_evaluate(
                model=lm,
                tasks=[dict(config)],
                samples=samples,
                task_manager=index,
                bootstrap_iters=0,
            )
        results.append(found["results"][task.name])

    seconds = bench.wall_s(evaluate, repeats=1)
    return seconds, {key.removesuffix(",none"): value for key, value in results[-1].items()}
