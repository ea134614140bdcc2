"""What an item of a climb takes beside an item of a trial, which counts as one third of it.

One thread, CPU seconds. Run on the embedded models and on random ones of 110M parameters with
``python -m tests.benchmarks.steps``: two minutes, 2 GB. The rows are kept in
``runs/benchmarks/steps.jsonl``.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

from evomerge.config.presets import Presets
from evomerge.execution.protocol import Climb, Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.runs.parts import build_space, load_suites
from evomerge.space.protocol import ModelSet
from tests.benchmarks.replay import random_model
from tests.benchmarks.results import Row, keep, latest, markdown
from tests.benchmarks.shapes import LAYERS

__all__ = ["DOCS", "main", "table"]

DOCS = Path("docs/samplers.md")
"""Where the table is."""

_MODELS = ("embedded, 0.7M", "random, 110M")
_EXPERTS = {name: f"zoo:{name}" for name in ("math", "list", "facts")}
_REPEATS, _STEPS = 3, 2
_ITEMS, _CLIMBED = 32, 16  # per task: of a trial, and of a step
_SPACE = {
    "method": "task_arithmetic",
    "depth": {"groups": 3},
    "modules": {"attention": ["attention"], "rest": ["mlp", "norm", "embedding", "head"]},
    "genes": {"coefficient": {"range": [0.0, 1.2]}},
}
_OBJECTIVES = (("zoo_math", "exact_match"), ("zoo_list", "exact_match"), ("zoo_facts", "acc"))


def main() -> None:
    """Measure both, and show the table."""
    os.environ["EVOMERGE_CACHE"] = "off"  # every trial is scored
    torch.set_num_threads(1)
    keep("steps", _row(_MODELS[0], "zoo:base", _EXPERTS, 6))
    with tempfile.TemporaryDirectory() as folder:
        names = ("base", *_EXPERTS)
        base, *experts = (random_model(Path(folder) / n, i) for i, n in enumerate(names))
        keep("steps", _row(_MODELS[1], base, dict(zip(_EXPERTS, experts, strict=True)), LAYERS))
    print(table())


def table() -> str:
    """Lay out the latest rows."""
    rows = latest("steps", _MODELS)
    columns = ["models", "item of a trial", "item of a climb", "times", "counted as"]
    return markdown(columns, map(_cells, rows), rows)


def _row(name: str, base: str, experts: dict[str, str], n_layers: int) -> Row:
    space = build_space(_SPACE, ModelSet(base, experts, n_layers))
    (suite,) = load_suites(["zoo"], Presets(), Path.cwd())
    suites = (replace(suite, limit=_ITEMS),)
    worker = Worker(WorkerSpec(base, experts, suites, space=space, objectives=_OBJECTIVES))
    params = dict.fromkeys(space.defaults, 0.3)
    climb = Climb(params, (1.0,) * 3, _STEPS, _CLIMBED, step_size=0.1, pull=0.5, seed=0)
    found = [_seconds(worker, replace(climb, seed=i)) for i in range(_REPEATS + 1)][1:]
    return {
        "method": name,
        "trial_item_s": median(trial for trial, _ in found),
        "climb_item_s": median(own for _, own in found),
    }


def _seconds(worker: Worker, climb: Climb) -> tuple[float, float]:
    """CPU seconds per item of a trial, and of the climb from there; the first ones warm up."""
    moved = dict.fromkeys(climb.params, 0.3 + 0.01 * climb.seed)
    recipe = worker._spec.space.recipe(moved)  # type: ignore[union-attr]
    start = time.process_time()
    plain = worker.run(Job(0, recipe))
    between = time.process_time()
    climbed = worker._climber.climb(replace(climb, params=moved))
    end = time.process_time()
    assert isinstance(plain, Scored)
    n = _ITEMS * len(_OBJECTIVES)
    return (between - start) / n, (end - between) / climbed.n_items


def _cells(row: Row) -> list[str]:
    trial, climb = float(row["trial_item_s"]), float(row["climb_item_s"])
    return [
        str(row["method"]),
        f"{1000 * trial:.3g} ms",
        f"{1000 * climb:.3g} ms",
        f"{climb / trial:.1f}",
        "3",
    ]


if __name__ == "__main__":
    main()
