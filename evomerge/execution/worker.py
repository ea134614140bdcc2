"""The worker: experts, one live model, prepared evaluators. Stateless apart from caches."""

from __future__ import annotations

import dataclasses
import time
import traceback

from evomerge.cache import cache_folder
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.execution.costs import COST
from evomerge.execution.meter import CostMeter
from evomerge.execution.protocol import Failed, Job, Outcome, Scored, WorkerSpec
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources

__all__ = ["Worker"]


class Worker:
    """Runs any recipe over its models; two workers give the same scores.

    Args:
        spec: Models and suites.

    Raises:
        CheckpointError: A model is missing, does not fit, or is not finite.
        EvaluationError: A task cannot be prepared.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        from transformers import AutoTokenizer

        self._spec = spec
        sources = Sources(spec.base, spec.experts, shared=cache_folder("experts"))
        sources.check_finite()
        self._candidate = LiveCandidate(sources, spec.dtype, spec.device, spec.device_share)
        self._tokenizer = AutoTokenizer.from_pretrained(sources.anchor.folder)
        self._prepared: dict[str, PreparedSuites] = {}
        self._meter = CostMeter(spec, sources, self._candidate, self._tokenizer)
        self.prepare("search")

    def prepare(self, split: str) -> None:
        """Build the tasks of one split, unless that is done."""
        if split not in self._prepared:
            self._prepared[split] = PreparedSuites(
                self._spec.suites, split, self._candidate.model, self._tokenizer
            )
            self._meter.prepare(split, self._prepared[split])

    def run(self, job: Job) -> Outcome:
        """Merge and score one recipe; any exception becomes ``Failed``."""
        try:
            return self._run(job)
        except Exception as err:  # border: whatever a trial does, the run goes on
            line = " ".join(str(err).split()) or type(err).__name__
            return Failed(job, f"{type(err).__name__}: {line}", traceback.format_exc())

    def _run(self, job: Job) -> Scored:
        self.prepare(job.split)
        start = time.perf_counter()
        self._candidate.materialise(job.recipe)
        merged = time.perf_counter()
        prepared = self._prepared[job.split]
        scores = prepared.score()
        if self._spec.costs:
            costs = self._meter.measure(job.recipe, job.split, prepared, scores)
            scores = dataclasses.replace(scores, metrics={**scores.metrics, COST: costs})
        seconds = {"merge": merged - start, "evaluate": time.perf_counter() - merged}
        return Scored(job, scores, seconds)
