"""How scores of quantized candidates go with those of the merges themselves.

Run with ``python -m tests.benchmarks.quantized``: ten merges of the embedded models, some
minutes on one core. ``--write-docs`` puts the table into docs/sizes.md.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from transformers import AutoTokenizer

from evomerge.config.presets import Presets
from evomerge.evaluation.catalogue import prompt_suites
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.scores import MetricValue
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.quantized import QUANTIZATIONS
from evomerge.merging.sources import Sources
from evomerge.models.zoo import zoo_path
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.parts import load_suites
from tests.pages import DOCS

__all__ = ["rows"]

_EXPERTS = {name: f"zoo:{name}" for name in ("math", "list", "facts")}
_TASKS, _METRICS = ("zoo_math", "zoo_list", "zoo_facts"), ("exact_match", "gold_bpb")
_ITEMS = 40  # of each task
_MERGES = 10
_START, _END = "<!-- bench:quantized -->", "<!-- /bench -->"


def rows() -> Iterator[str]:
    """Yield a row per way to quantize: how its scores go with those of the merges themselves."""
    whole = _scores(None)
    for name in QUANTIZATIONS:
        found = _scores(name)
        cells = [_compared(whole[..., k], found[..., k]) for k in range(len(_METRICS))]
        yield f"| `{name}` | {' | '.join(cell for pair in cells for cell in pair)} |"


def _recipes() -> Iterator[Recipe]:
    """Draw merges whose coefficients go from hardly any change to too much of it."""
    random = np.random.default_rng(0)
    for i in range(_MERGES):
        coefficient = {name: float(random.uniform(0, 1.2)) for name in _EXPERTS}
        method = ("task_arithmetic", "ties")[i % 2]
        yield Recipe(_EXPERTS, (Rule(method, {"coefficient": coefficient}),), "zoo:base")


def _scores(name: str | None) -> NDArray[np.float64]:
    """Score all merges; (merges, tasks, metrics)."""
    candidate = LiveCandidate(Sources("zoo:base", _EXPERTS), quantize=name)
    prepared = _prepared(candidate)
    values = []
    for recipe in _recipes():
        candidate.materialise(recipe)
        metrics = prepared.score().metrics
        values.append([[_value(metrics[task], m) for m in _METRICS] for task in _TASKS])
    return np.array(values)


def _prepared(candidate: LiveCandidate) -> PreparedSuites:
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("base"))
    (zoo,) = load_suites(["zoo"], Presets(), Path.cwd())
    suite = dataclasses.replace(zoo, limit=_ITEMS, smooth=frozenset(_TASKS))
    prompted = prompt_suites([suite], "search", candidate.model, tokenizer)
    return PreparedSuites(prompted, candidate.model, tokenizer)


def _value(metrics: Mapping[str, MetricValue], name: str) -> float:
    """Read a metric; that of tasks with choices is their accuracy."""
    names = (name, "acc") if name == "exact_match" else (name,)
    return next(m.value for label, m in metrics.items() if label.partition(",")[0] in names)


def _compared(whole: NDArray[np.float64], found: NDArray[np.float64]) -> tuple[str, str, str]:
    """Compare (merges, tasks): correlations within tasks, averaged, and the mean difference."""
    pairs = list(zip(whole.T, found.T, strict=True))
    linear = np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    ranks = np.mean([spearmanr(a, b).statistic for a, b in pairs])
    return f"{linear:.3f}", f"{ranks:.3f}", f"{np.mean(found - whole):+.4f}"


def main() -> None:
    """Measure, print, and write if asked to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write-docs", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = "\n".join(_HEADER + list(rows()))
    print(table)
    if arguments.write_docs:
        page = DOCS / "sizes.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(_START)
        _, _, after = rest.partition(_END)
        page.write_text(f"{before}{_START}\n{table}\n{_END}{after}", encoding="utf-8")


_HEADER = [
    "| | accuracy: r | of ranks | difference | bits per byte: r | of ranks | difference |",
    "|---|---:|---:|---:|---:|---:|---:|",
]


if __name__ == "__main__":
    main()
