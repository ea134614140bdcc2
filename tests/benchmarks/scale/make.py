"""Makes a study of any length with the real search loop; scores come from a formula.

Everything is written as a search writes it, but for the waits for the disk. A long study of random
search repeats its first trials under new numbers, with scores of their own.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.evaluation.scores import ItemScore, MetricValue, Scores
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Job, Outcome, Scored
from evomerge.runs.events import Events
from evomerge.runs.inputs import input_digests
from evomerge.runs.loaded import Loaded
from evomerge.runs.optuna_study import keep_inputs, ledger_of, open_study
from evomerge.runs.run import settled, start_study
from evomerge.runs.sampling import make_sampler
from evomerge.seeds import seed_for
from evomerge.study.folder import StudyFolder
from evomerge.study.journal import Record
from evomerge.study.search import Budget, Search
from evomerge.study.timing import Timing

__all__ = ["N_GENES", "FormulaExecutor", "make_study", "without_waits"]

N_GENES = 50
SEARCHED = 1000  # trials of a long study that are not repeated
_EXPERTS = ("math", "list", "facts", "math_step200", "math_step400")
_YAML = f"""
models:
  base: zoo:base
  experts: {{{", ".join(f"{name}: zoo:{name}" for name in _EXPERTS)}}}
search_space:
  method: task_arithmetic
  depth: {{groups: 3}}
  modules: {{attention: [attention], mlp: [mlp], norm: [norm], other: [embedding, head]}}
  genes: {{coefficient: {{range: [0.0, 1.2]}}}}
evaluators: [zoo]
objectives:
  - {{task: zoo_math, metric: exact_match}}
  - {{task: zoo_list, metric: exact_match}}
finalists: 0
execution: {{executor: inline}}
"""


class FormulaExecutor:
    """Scores trials by their number: close to a quarter circle, a little closer as time goes on.

    Args:
        n_items: Items whose scores are stored with a trial, half of them of each task.
    """

    n_workers = 1

    def __init__(self, n_items: int) -> None:
        self._n_items = n_items
        self._jobs: deque[Job] = deque()

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._jobs.append(job)

    def next_outcome(self) -> Outcome:
        """Score the job that has waited for longest."""
        job = self._jobs.popleft()
        return Scored(job, self.scores(job.trial), {"merge": 0.0123, "evaluate": 1.2345})

    def close(self) -> None:
        """Nothing to stop."""

    def scores(self, number: int) -> Scores:
        """Score a trial."""
        rng = np.random.default_rng(seed_for(0, "scale", number))
        angle, short = rng.random() * np.pi / 2, rng.exponential() / np.sqrt(10 + number)
        near = max(0.0, 1 - float(short))
        values = {"zoo_math": near * float(np.cos(angle)), "zoo_list": near * float(np.sin(angle))}
        metrics = {t: {"exact_match": MetricValue(v, 0.0213, 150)} for t, v in values.items()}
        items = tuple(
            ItemScore(task, item, "exact_match", float(rng.random() < value), 0.5, 12, 0.01)
            for task, value in values.items()
            for item in range(self._n_items // 2)
        )
        return Scores(metrics, items, 1.2345)


def make_study(
    root: Path, n_trials: int, sampler: str = "random", n_items: int = 10
) -> tuple[StudyFolder, float]:
    """Make a study in ``root/study``: 50 genes, 2 objectives, one trial short of its budget.

    Args:
        root: Made if it is missing.
        n_trials: How many it shall have; only those of ``random`` are repeated.
        sampler: The experiment's.
        n_items: Items whose scores are stored with a trial.

    Returns:
        The folder, and seconds per trial that the loop took.
    """
    root.mkdir(parents=True, exist_ok=True)
    (root / "experiment.yaml").write_text(_YAML)
    overrides = [f"budget.trials={n_trials + 1}", f"sampler={sampler}"]
    folder = StudyFolder(root / "study")
    loaded = Loaded.of(load_experiment(root / "experiment.yaml", Presets(), overrides))
    assert len(loaded.space.distributions) == N_GENES
    loaded = settled(loaded, folder, Events())
    start_study(loaded, folder)
    n_searched = min(n_trials, SEARCHED) if sampler == "random" else n_trials
    with folder.lock(), without_waits():
        seconds = _searched(loaded, folder, n_searched, n_items)
        if n_searched < n_trials:
            _lengthen(folder, n_trials, n_items)
    return folder, seconds / n_searched


def _searched(loaded: Loaded, folder: StudyFolder, n_trials: int, n_items: int) -> float:
    experiment, items = loaded.experiment, ItemStore(folder.items)
    sampler = make_sampler(experiment, loaded.space, loaded.sloped, items)
    study = open_study(folder, experiment, sampler)
    keep_inputs(study, input_digests(loaded))
    search = Search(
        ledger_of(study, folder, experiment),
        loaded.space,
        FormulaExecutor(n_items),
        budget=Budget(n_trials),
        timing=Timing(folder.timing),
    )
    search.seed(loaded.seeds)
    started = time.perf_counter()
    search.run()
    return time.perf_counter() - started


@contextmanager
def without_waits() -> Iterator[None]:
    """Do not wait for the disk inside the block."""
    fsync, os.fsync = os.fsync, lambda file: None
    try:
        yield
    finally:
        os.fsync = fsync


def _lengthen(folder: StudyFolder, n_trials: int, n_items: int) -> None:
    """Repeat the trials of a study until it has so many."""
    records = list(map(json.loads, folder.journal.read_text().splitlines()))
    by_trial = _searched_records(records)
    scorer, n_lines = FormulaExecutor(n_items), len(records)
    scored = {number: scorer.scores(number) for number in range(1 + max(by_trial), n_trials)}
    _write_items(folder, {number: scores.items for number, scores in scored.items()})
    with folder.journal.open("a") as journal:
        for (number, scores), repeated in zip(
            scored.items(), cycle(by_trial.values()), strict=False
        ):
            values = [task["exact_match"].value for task in scores.metrics.values()]
            for record in repeated:
                n_lines += 1
                told = {"values": values} if "values" in record else {}
                again = {**record, **told, "trial": number, "line": n_lines}
                journal.write(json.dumps(again, separators=(",", ":")) + "\n")


def _write_items(folder: StudyFolder, items: Mapping[int, Sequence[ItemScore]]) -> None:
    """Write the scores of many trials as one file, as the store joins them."""
    rows = [(number, "search", *vars(one).values()) for number, of in items.items() for one in of]
    schema = pq.read_schema(next(folder.items.glob("*.parquet")))
    columns = dict(zip(schema.names, map(list, zip(*rows, strict=True)), strict=True))
    file = folder.items / "joined.500000.parquet"
    pq.write_table(pa.table(columns, schema), file, compression="zstd", row_group_size=1 << 16)


def _searched_records(records: Sequence[Record]) -> dict[int, list[Record]]:
    """Group the records of the trials of the search, without those that introduce genes."""
    found: dict[int, list[Record]] = {}
    for record in records:
        if "trial" in record:
            found.setdefault(record["trial"], []).append(record)
    n_records = Counter(map(len, found.values())).most_common(1)[0][0]
    return {
        number: of_it
        for number, of_it in found.items()
        if len(of_it) == n_records and not any("new_genes" in record for record in of_it)
    }
