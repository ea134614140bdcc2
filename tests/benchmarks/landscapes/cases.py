"""The searches that samplers are compared on."""

from __future__ import annotations

from dataclasses import dataclass

from tests.benchmarks.landscapes.landscape import FloatArray, Landscape, landscape
from tests.benchmarks.quality import picked, quality

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """One search problem.

    Attributes:
        name: For tables.
        space: Search space preset.
        tasks: What is traded off; one objective each.
        trials: The budget.
        mean: One objective, the mean of the tasks, instead of one per task.
    """

    name: str
    space: str
    tasks: tuple[str, ...]
    trials: int
    mean: bool = False

    @property
    def landscape(self) -> Landscape:
        """Where scores come from."""
        return landscape(self.space)

    @property
    def n_objectives(self) -> int:
        """Objectives, all maximised."""
        return 1 if self.mean else len(self.tasks)

    def objectives(self, accuracies: FloatArray) -> FloatArray:
        """Turn accuracies (points, all tasks) into objectives (points, n_objectives)."""
        columns = [self.landscape.tasks.index(task) for task in self.tasks]
        chosen = accuracies[:, columns]
        return chosen.mean(axis=1, keepdims=True) if self.mean else chosen

    def quality(self, seen: FloatArray, true: FloatArray) -> tuple[float, float]:
        """Judge what a user would take home after a search, by its true values.

        Args:
            seen: Noisy objectives of the trials so far; they decide what is picked.
            true: The same without noise; they decide what it is worth.

        Returns:
            Hypervolume of the front as seen, and the mean objective of the trial with the best mean
            as seen; see ``quality``.
        """
        parents = self.objectives(self.landscape.parent_accuracies)
        front, best = picked(seen, parents.min(axis=0), len(seen))
        return quality(true[front], true[best], parents)


_MATH_LIST = ("zoo_math", "zoo_list")
_ALL = (*_MATH_LIST, "zoo_facts")

CASES = (
    Case("global, 2 objectives", "global_linear", _MATH_LIST, 60),
    Case("layers, mean, short", "layerwise_task_arithmetic", _ALL, 100, mean=True),
    Case("layers, mean, long", "layerwise_task_arithmetic", _ALL, 300, mean=True),
    Case("layers, 2 objectives", "layerwise_task_arithmetic", _MATH_LIST, 120),
    Case("layers, 3 objectives", "layerwise_task_arithmetic", _ALL, 300),
    Case("TIES, 2 objectives", "layerwise_ties", _MATH_LIST, 300),
    Case("methods, 2 objectives", "method_choice", _MATH_LIST, 120),
)
