"""Takes climbs on a worker: merges, runs losses backward, and finds the slopes along genes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from evomerge.errors import EvaluationError
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.execution.climb import SlopedGenes, Slopes, climb, drawn_items
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
        parents: Puts one parent after another into the live model.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        sources: Sources,
        candidate: LiveCandidate,
        prepared: PreparedSuites,
        parents: Callable[[], Iterator[None]],
    ) -> None:
        assert spec.space is not None, "a job with a climb has params of a space"
        self._space, self._objectives = spec.space, spec.objectives
        self._candidate, self._roles = candidate, sources.architecture.roles
        self._genes = SlopedGenes(spec.space)
        self._losses = prepared.losses(spec.objectives, parents=parents)

    def climb(self, request: Climb) -> Climbed:
        """Take the steps of a request.

        Raises:
            EvaluationError: An objective that counts has no slope, or a loss or slope is not
                finite.
        """
        self._require_slopes(request)
        return climb(request, self._genes, lambda *at: self._slopes_at(request, *at))

    def _require_slopes(self, request: Climb) -> None:
        asked = zip(self._objectives, request.weights, self._losses.reasons, strict=True)
        for (task, metric), weight, reason in asked:
            if weight > 0 and reason is not None:
                raise EvaluationError(f"{task} {metric} has no slope: {reason}")

    def _slopes_at(self, request: Climb, params: Params, step: int) -> list[Slopes | None]:
        self._candidate.materialise(self._space.recipe(params))
        return [
            self._slopes(k, params, drawn_items(request, step, k, self._losses.n_items[k]))
            if weight > 0
            else None
            for k, weight in enumerate(request.weights)
        ]

    def _slopes(self, k: int, params: Params, rows: list[int]) -> Slopes:
        """Find the slopes of one objective's loss over some of its items."""
        with self._candidate.slopes() as slopes:
            loss = self._losses.backward(k, rows)
        along = gene_slopes(self._space, params, slopes.along_recipe(), self._roles)
        return Slopes(loss, along, len(rows))
