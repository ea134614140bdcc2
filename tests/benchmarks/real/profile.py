"""Where the seconds of a trial go: merge, prompts, answers token by token, what is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import AutoTokenizer, PreTrainedModel

from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.suite import Suite
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe
from evomerge.space.protocol import ModelSet
from tests.benchmarks.results import Row, layout

__all__ = ["profile", "profile_table"]

_PHASES = ("merge", "prompts", "answers", "rest")


@dataclass
class _Forward:
    """Passes of one kind: seconds of the processor, and tokens."""

    seconds: float = 0.0
    tokens: int = 0
    passes: int = 0


def profile(models: ModelSet, suites: Sequence[Suite], recipes: Mapping[str, Recipe]) -> list[Row]:
    """Merge and score recipes in this process, on one thread.

    Args:
        models: What is merged.
        suites: What the merges are scored on.
        recipes: What to measure, by name; the first one is merged once before.

    Returns:
        A row for each: seconds of the processor by phase, tokens, items.
    """
    torch.set_num_threads(1)
    sources = Sources(models.base, models.experts)
    candidate = LiveCandidate(sources)
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.folder)
    prepared = PreparedSuites.of(suites, "search", candidate.model, tokenizer)
    candidate.materialise(next(iter(recipes.values())))  # compiles
    rows = [_row(name, recipe, candidate, prepared) for name, recipe in recipes.items()]
    n_items = sum(len(one.items) for one in prepared.tasks)
    return [{**row, "items": n_items} for row in rows]


def profile_table(rows: list[Row]) -> str:
    """Show seconds and shares of the phases, as Markdown."""
    columns = ["candidate", "items", *(f"{phase}, s" for phase in _PHASES), "sum, s"]
    columns += ["tokens of prompts", "tokens of answers", "answers in a step", "tokens a second"]
    cells = []
    for row in rows:
        total = sum(float(row[phase]) for phase in _PHASES)
        parts = [f"{float(row[p]):.2f} ({float(row[p]) / total:.0%})" for p in _PHASES]
        tokens = int(row["answer_tokens"])
        counts = [f"{row['prompt_tokens']}", f"{tokens}"]
        counts += [f"{tokens / int(row['steps']):.1f}", f"{tokens / float(row['answers']):.0f}"]
        cells.append([str(row["method"]), str(row["items"]), *parts, f"{total:.2f}", *counts])
    return layout(columns, cells)


def _row(name: str, recipe: Recipe, candidate: LiveCandidate, prepared: PreparedSuites) -> Row:
    start = time.process_time()
    candidate.materialise(recipe)
    merged = time.process_time()
    with _forwards(candidate.model) as (prompts, answers):
        prepared.score()
    total = time.process_time() - merged
    return {
        "method": name,
        "merge": merged - start,
        "prompts": prompts.seconds,
        "answers": answers.seconds,
        "rest": total - prompts.seconds - answers.seconds,
        "prompt_tokens": prompts.tokens,
        "answer_tokens": answers.tokens,
        "steps": answers.passes,
    }


@contextmanager
def _forwards(model: PreTrainedModel) -> Iterator[tuple[_Forward, _Forward]]:
    """Time forward passes over prompts, and those over single tokens."""
    prompts, answers, started = _Forward(), _Forward(), list[float]()

    def before(*_: object) -> None:
        started.append(time.process_time())

    def after(_: object, args: tuple[torch.Tensor, ...], __: object) -> None:
        kind = answers if args[0].shape[1] == 1 else prompts
        kind.seconds += time.process_time() - started.pop()
        kind.tokens += args[0].numel()
        kind.passes += 1

    handles: list[Callable[[], None]] = [
        model.register_forward_pre_hook(before).remove,
        model.register_forward_hook(after).remove,
    ]
    try:
        yield prompts, answers
    finally:
        for remove in handles:
            remove()
