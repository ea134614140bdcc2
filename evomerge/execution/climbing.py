"""Takes climbs on a worker: merges, runs losses backward, and finds the slopes along genes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from evomerge.errors import EvaluationError
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.item_losses import LossKind, LossSettings
from evomerge.evaluation.losses import Losses
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.execution.climb import Factors, SlopedGenes, Slopes, climb, drawn_items
from evomerge.execution.costs import COST, why_no_slope
from evomerge.execution.meter import CostMeter
from evomerge.execution.protocol import Climb, Climbed, WorkerSpec
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.space.protocol import Params
from evomerge.space.slopes import gene_slopes

__all__ = ["Climber"]


class Climber:
    """Takes climbs over the items of one split.

    Args:
        spec: Its space decodes genes, its objectives are climbed.
        sources: The worker's models.
        candidate: The worker's live model, which a climb leaves wherever it ended.
        prepared: The suites whose items losses are taken on.
        meter: Knows the slopes of costs, for the same split.
        parents: Puts one parent after another into the live model.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        sources: Sources,
        candidate: LiveCandidate,
        prepared: PreparedSuites,
        meter: CostMeter,
        parents: Callable[[], Iterator[None]],
    ) -> None:
        assert spec.space is not None, "a job with a climb has params of a space"
        self._space, self._objectives = spec.space, spec.objectives
        self._candidate, self._roles = candidate, sources.architecture.roles
        self._genes = SlopedGenes(spec.space)
        self._settings = spec.losses or LossSettings()
        self._prepared, self._meter, self._parents = prepared, meter, parents
        self._by_kind: dict[LossKind, Losses] = {}

    def climb(self, request: Climb) -> Climbed:
        """Take the steps of a request.

        Raises:
            EvaluationError: An objective that counts has no slope, or a loss or slope is not
                finite.
        """
        losses = self._losses(request.loss)
        self._require_slopes(request, losses)
        with clean_harness():  # once, not for every batch
            return climb(request, self._genes, lambda *at: self._slopes_at(request, losses, *at))

    def _losses(self, kind: LossKind) -> Losses:
        """Prepare the losses of a kind once."""
        if kind not in self._by_kind:
            settings = dataclasses.replace(self._settings, kind=kind)
            self._by_kind[kind] = self._prepared.losses(self._objectives, settings, self._parents)
        return self._by_kind[kind]

    def _require_slopes(self, request: Climb, losses: Losses) -> None:
        asked = zip(self._objectives, request.voices, losses.reasons, strict=True)
        for (task, metric), voice, of_items in asked:
            reason = why_no_slope(metric, "minimize") if task == COST else of_items
            if voice > 0 and reason is not None:
                raise EvaluationError(f"{task} {metric} has no slope: {reason}")

    def _slopes_at(
        self,
        request: Climb,
        losses: Losses,
        params: Params,
        step: int,
        sums: Sequence[Factors],
    ) -> list[Slopes]:
        self._candidate.materialise(self._space.recipe(params))
        rows = {
            k: drawn_items(request, step, k, self._n_items(losses, k))
            for k, voice in enumerate(request.voices)
            if voice > 0
        }
        return [self._slopes(losses, params, rows, factors) for factors in sums]

    def _slopes(
        self, losses: Losses, params: Params, rows: Mapping[int, list[int]], factors: Factors
    ) -> Slopes:
        """Find the slopes of a sum of losses, each over some items of its objective."""
        counted = {k: factor for k, factor in enumerate(factors) if factor}
        with self._candidate.slopes() as slopes:
            found = tuple(self._backward(losses, k, rows[k], f) for k, f in counted.items())
        along = gene_slopes(self._space, params, slopes.along_recipe(), self._roles)
        return Slopes(found, along, sum(len(rows[k]) for k in counted))

    def _n_items(self, losses: Losses, k: int) -> int:
        task, metric = self._objectives[k]
        return self._meter.n_items(metric) if task == COST else losses.n_items[k]

    def _backward(self, losses: Losses, k: int, rows: list[int], factor: float) -> float:
        """Run one objective backward: gradients add up in the live model."""
        task, metric = self._objectives[k]
        if task == COST:
            return self._meter.backward(metric, rows, factor, self._settings)
        return losses.backward(k, rows, factor)
