"""How long trials take, measured before a search: a merge, and some items of each task."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from evomerge.cache import cache_folder
from evomerge.evaluation.scores import ItemScore, Scores
from evomerge.recipe.rules import sum_rule
from evomerge.runs.loaded import Loaded
from evomerge.runs.workers import on_device, worker_count

__all__ = ["Pace", "measure_pace", "scoring_seconds"]

_MOST_ITEMS = 24  # of each task


@dataclass(frozen=True)
class Pace:
    """How long trials of an experiment take here.

    Attributes:
        trial: Seconds of one on one worker, without climbs.
        n_workers: That are at work at once.
    """

    trial: float
    n_workers: int

    def seconds(self, n_trials: float) -> float:
        """Reckon how long so many trials take."""
        return n_trials * self.trial / self.n_workers


def measure_pace(loaded: Loaded) -> Pace:
    """Merge the average of the experts, and score it on the first search items of each task.

    Args:
        loaded: A checked experiment.

    Raises:
        EvomergeError: A model cannot be loaded.
    """
    from transformers import AutoTokenizer

    from evomerge.evaluation.prepared import PreparedSuites
    from evomerge.evaluation.transformers_engine import TransformersEngine
    from evomerge.merging.candidate import LiveCandidate
    from evomerge.merging.sources import Sources

    models, execution = loaded.models, loaded.experiment.execution
    sources = Sources.of(models, cache_folder("experts"))
    worker = on_device(loaded.worker, execution)
    engine = worker.engine
    candidate = LiveCandidate(
        sources,
        models.dtype,
        worker.device,
        worker.merging_share,
        engine.attention,
        engine.quantize,
        worker.n_devices,
    )
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.companions)
    suites = [
        replace(suite, limit=min(suite.limit or _MOST_ITEMS, _MOST_ITEMS))
        for suite in loaded.suites
        if not suite.report_only
    ]
    make_engine = partial(TransformersEngine, reading=engine.reading)
    prepared = PreparedSuites.of(
        suites,
        "search",
        candidate.model,
        tokenizer,
        make_engine=make_engine,
        reading=engine.reading,
    )
    n = len(models.experts)
    for share in (0.5, 1.0):  # kernels are compiled for the first one
        start = time.perf_counter()
        mix = dict.fromkeys(models.experts, share / n)
        candidate.materialise(models.recipe((sum_rule(mix),)))
        merged = time.perf_counter() - start
        scores = prepared.score()
    return Pace(merged + scoring_seconds(scores, _n_items(loaded)), worker_count(execution))


def _n_items(loaded: Loaded) -> dict[str, int]:
    suites = loaded.tasks.prompted("search")
    return {task.name: len(task.items) for suite in suites for task in suite.tasks}


def scoring_seconds(scores: Scores, n_items: Mapping[str, int]) -> float:
    """Reckon the seconds that all items take from those of some, task by task.

    Args:
        scores: Of some items of each task.
        n_items: How many there are, by task.
    """
    once = {(item.task, item.item): item for item in scores.items}
    by_task: defaultdict[str, list[ItemScore]] = defaultdict(list)
    for item in once.values():
        by_task[item.task].append(item)
    forward = {task: sum(item.seconds for item in some) for task, some in by_task.items()}
    whole = sum(n_items[task] * forward[task] / len(some) for task, some in by_task.items())
    spent = sum(forward.values())
    return whole * (scores.seconds / spent if spent else 1.0)
