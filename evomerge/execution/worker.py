"""The worker: experts, one live model, prepared evaluators. Stateless apart from caches."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
import traceback
from collections.abc import Iterator
from importlib.metadata import version
from typing import TYPE_CHECKING

from evomerge.cache import cache_folder
from evomerge.errors import RecipeError
from evomerge.evaluation.catalogue import prompt_suites
from evomerge.evaluation.content import require_same_tasks
from evomerge.evaluation.engine import device_name
from evomerge.evaluation.prepared import MakeEngine, PreparedSuites
from evomerge.evaluation.probe import Gate
from evomerge.evaluation.requests import PromptedSuite
from evomerge.evaluation.score_cache import SCORING, ScoreCache
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.suite import REPORT_ONLY
from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.execution.climbing import Climber
from evomerge.execution.contents import require_contents
from evomerge.execution.costs import COST, Cost
from evomerge.execution.meter import CostMeter
from evomerge.execution.protocol import Climb, Failed, Job, Outcome, Pruned, Scored, WorkerSpec
from evomerge.execution.together import TogetherCandidate
from evomerge.fingerprint import digest_of
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.measuring import measure_models
from evomerge.merging.sources import Sources
from evomerge.models.expert import content_digest
from evomerge.models.reference import ModelRef
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Recipe
from evomerge.secrets import without_secrets
from evomerge.space.ensemble import has_ensembles

if TYPE_CHECKING:
    from evomerge.evaluation.vllm_engine import VllmModel

__all__ = ["Worker", "measure"]


def _without_places(recipe: Recipe) -> str:
    """Digest a recipe whose models are known by name."""
    base = None if recipe.base is None else BASE
    experts: dict[str, ModelRef] = {name: name for name in recipe.experts}
    prompts = None if recipe.prompts is None else dataclasses.replace(recipe.prompts, file="")
    return dataclasses.replace(recipe, base=base, experts=experts, prompts=prompts).digest


def _seconds(start: float, merged: float) -> dict[str, float]:
    """Time of the phases up to now."""
    return {"merge": merged - start, "evaluate": time.perf_counter() - merged}


def _line(err: Exception) -> str:
    """Say what happened in one line."""
    line = " ".join(str(err).split()) or type(err).__name__
    return without_secrets(f"{type(err).__name__}: {line}")


def measure(spec: WorkerSpec) -> None:
    """Measure the models once for all workers that share this one's cache on disk.

    Adapters and deltas are computed into that cache, too.

    Raises:
        CheckpointError: A model is missing, is not the driver's, does not fit, or is not finite.
    """
    sources = Sources.of(spec, cache_folder("experts"))
    if spec.contents is not None:
        require_contents(sources, spec.contents)
    if spec.space is not None:
        measure_models(sources, spec.space.statistics, lambda done, total: None)


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
        sources = Sources.of(spec, cache_folder("experts"))
        if spec.contents is not None:
            require_contents(sources, spec.contents)
        sources.check_finite()
        how = spec.engine.attention, spec.engine.quantize, spec.n_devices
        live = LiveCandidate(sources, spec.dtype, spec.device, spec.merging_share, *how)
        self._merged = live
        self._candidate = TogetherCandidate(spec, live) if has_ensembles(spec.space) else live
        self._vllm = self._inside_vllm(sources) if spec.engine.name == "vllm" else None
        self._sources = sources
        self._cache = ScoreCache(cache_folder("scores"))
        self._tokenizer = AutoTokenizer.from_pretrained(sources.anchor.companions)
        self._prepared: dict[str, PreparedSuites] = {}
        self._meter = CostMeter(spec, sources, self._candidate, self._tokenizer)
        self.prepare("search")

    @functools.cached_property
    def _gate(self) -> Gate | None:
        """Compares with the parents, which are merged and probed once."""
        if self._spec.gates is None:
            return None
        probes = self._prepared["search"].probes(self._spec.gates)
        return Gate(self._spec.gates, probes, self._parents())

    def _parents(self) -> Iterator[None]:
        """Merge the base and each expert in turn."""
        for parent in ("base", *self._spec.experts):
            self._materialise(self._spec.parent_recipe(parent))
            yield

    def _inside_vllm(self, sources: Sources) -> VllmModel:
        from evomerge.evaluation.vllm_engine import VllmModel

        folder, candidate = sources.anchor.folder, self._candidate
        share = self._spec.device_share - self._spec.merging_share
        arguments = self._spec.engine.arguments
        return VllmModel(folder, candidate.model, candidate.tensors, share, arguments)

    def _make_engine(self) -> MakeEngine:
        if self._vllm is None:
            return functools.partial(TransformersEngine, reading=self._spec.engine.reading)
        from evomerge.evaluation.vllm_engine import VllmEngine

        return functools.partial(VllmEngine, self._vllm)

    def _materialise(self, recipe: Recipe) -> None:
        """Merge a recipe into the live model, and into its copy inside vLLM."""
        if self._vllm is not None and recipe.path:
            raise RecipeError(
                "engine vllm: expected a merge without a data-flow path, which vLLM cannot run; "
                "set engine: transformers"
            )
        self._candidate.materialise(recipe)
        if self._vllm is not None:
            self._vllm.update()

    def prepare(self, split: str) -> None:
        """Build the tasks of one split, or those that are only reported, unless that is done."""
        if split in self._prepared:
            return
        if isinstance(self._candidate, TogetherCandidate):
            self._candidate.hold_all()
        is_reported = split == REPORT_ONLY
        self._prepared[split] = PreparedSuites(
            self._spec.prompted.get(split) or self._prompted(split, is_reported=is_reported),
            self._candidate.model,
            self._tokenizer,
            rungs=self._spec.rungs if split == "search" else (),
            make_engine=self._make_engine(),
        )
        if not is_reported:
            self._meter.prepare(split, self._prepared[split])

    def _prompted(self, split: str, *, is_reported: bool) -> tuple[PromptedSuite, ...]:
        """Build the prompts of one split here."""
        suites = [suite for suite in self._spec.suites if suite.report_only == is_reported]
        read_as = "test" if is_reported else split
        model, reading = self._candidate.model, self._spec.engine.reading
        found = prompt_suites(suites, read_as, model, self._tokenizer, reading)
        if wanted := self._spec.tasks.get(split):
            require_same_tasks(found, wanted)
        return found

    def run(self, job: Job) -> Outcome:
        """Merge and score one recipe, and climb on; any exception becomes ``Failed``.

        One in a climb leaves the scores as they are.
        """
        try:
            outcome = self._run(job)
        except Exception as err:  # border: whatever a trial does, the run goes on
            return Failed(job, _line(err), without_secrets(traceback.format_exc()))
        if isinstance(outcome, Scored) and job.climb is not None:
            return self._climbed(outcome, job.climb)
        return outcome

    def _climbed(self, scored: Scored, request: Climb) -> Scored:
        start = time.perf_counter()
        climbed, error = None, None
        try:
            if not request.is_wanted(self._values(scored.scores)):
                return scored
            climbed = self._climber.climb(request)
        except Exception as err:  # border: what was scored counts
            error = _line(err)
        seconds = {**scored.seconds, "slopes": time.perf_counter() - start}
        return dataclasses.replace(scored, seconds=seconds, climbed=climbed, climb_error=error)

    def _values(self, scores: Scores) -> list[float]:
        """Read the values of the objectives; NaN where a task has not returned its metric."""
        return [
            metrics[metric].value
            if metric in (metrics := scores.metrics.get(task, {}))
            else math.nan
            for task, metric in self._spec.objectives
        ]

    @functools.cached_property
    def _climber(self) -> Climber:
        """Climbs on the items that are searched; it prepares its losses once."""
        prepared = self._prepared["search"]
        models = self._sources, self._merged
        return Climber(self._spec, *models, prepared, self._meter, self._parents)

    def _run(self, job: Job) -> Scored | Pruned:
        self.prepare(job.split)
        prepared = self._prepared[job.split]
        start = time.perf_counter()
        digest = self._digest(job)
        if digest is not None and (known := self._cache.load(digest)) is not None:
            return self._raced(job, prepared.looks_at(known), start, start)
        gate = self._gate if job.is_gated else None  # the first one merges the parents
        start = time.perf_counter()
        self._materialise(job.recipe)
        merged = time.perf_counter()
        reason = None if gate is None else gate.reason()
        if reason is not None:
            return Pruned(job, reason, _seconds(start, merged))
        outcome = self._raced(job, self._looks(job, prepared), start, merged)
        is_whole = digest == self._digest(job)  # else batches became smaller in between
        if isinstance(outcome, Scored) and digest is not None and is_whole:
            self._cache.store(digest, outcome.scores)
        return outcome

    def _looks(self, job: Job, prepared: PreparedSuites) -> Iterator[Scores]:
        """Score the live model rung by rung; the last look has its costs and samples, too."""
        for scores in prepared.looks():
            yield self._completed(scores, job, prepared) if scores.metrics else scores

    def _completed(self, scores: Scores, job: Job, prepared: PreparedSuites) -> Scores:
        samples = prepared.samples() if job.wants_samples else {}
        metrics = dict(scores.metrics)
        if self._spec.costs and not job.is_report_only:
            metrics[COST] = self._meter.measure(job.recipe, job.split, prepared, scores)
        return dataclasses.replace(scores, metrics=metrics, samples=samples)

    def _raced(
        self, job: Job, looks: Iterator[Scores], start: float, merged: float
    ) -> Scored | Pruned:
        """Look at the scores after every rung; the last look is at all of them."""
        for scores in looks:
            if scores.metrics:
                return Scored(job, scores, _seconds(start, merged), device_name(self._spec.device))
            drop = None if job.race is None else job.race.drop(scores.items)
            if drop is not None:
                seconds = _seconds(start, merged)
                seen = scores.items, scores.verdicts
                return Pruned(job, drop.reason, seconds, drop.estimates, *seen)
        raise AssertionError("the last look has metrics")

    def _digest(self, job: Job) -> str | None:
        """Name everything the scores and costs of a job depend on; ``None`` for what may vary.

        An earlier trial, of this study or another, has stored the scores of the same recipe by it.
        """
        suites = None if self._models is None else self._prepared[job.split].digest
        costs = [] if job.is_report_only else sorted(self._spec.costs)
        if suites is None or any(Cost.of(cost).is_timed for cost in costs):
            return None
        engine = self._spec.engine
        by = [] if self._vllm is None else ["vllm", self._vllm.version]
        by += [] if engine.quantize is None else ["torchao", version("torchao")]
        told = [arguments] if (arguments := engine.counted.arguments) else []
        where = [self._spec.device, *by, *told]
        recipe = _without_places(job.recipe)
        return digest_of(SCORING, suites, recipe, costs, self._models, *where)

    @functools.cached_property
    def _models(self) -> list[object] | None:
        """Name what the models hold, wherever they are; ``None`` if nobody will ask."""
        if not self._cache.is_on:
            return None
        found = [content_digest(model) for model in self._sources.models]
        return [str(self._spec.dtype), found, list(self._spec.experts)]
