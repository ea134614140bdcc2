"""What a modifier is: declared parameters, and a change to the plan of one tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from evomerge.errors import RecipeError
from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import TensorContext
from evomerge.methods.declared import Declared

__all__ = ["Modifier", "check_adds_task_vectors"]


@dataclass(frozen=True, kw_only=True)
class Modifier(Declared, ABC):
    """A change to a plan, with its parameters bound.

    Attributes:
        name: As written in recipes.
        summary: What it does, in a few words.
        source: Where it was published.
        statistics: Members of ``TensorStatistics`` that it may ask for.
    """

    summary: ClassVar[str]
    source: ClassVar[str]
    statistics: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def apply(self, plan: TensorPlan, tensor: TensorContext) -> TensorPlan:
        """Change the plan of one tensor.

        Raises:
            RecipeError: The plan is of a kind that cannot be changed in this way.
        """

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``."""
        return self.statistics


def check_adds_task_vectors(name: str, plan: TensorPlan, tensor: TensorContext) -> None:
    """Refuse plans that have no merged task vector.

    Raises:
        RecipeError: The plan averages models.
    """
    if not (plan.delta or plan.prepared) or plan.base_coefficient != 1.0:
        raise RecipeError(
            f"modifier {name!r}: expected a method that adds task vectors to the base, got one "
            f"that averages models (tensor {tensor.name}); use e.g. task_arithmetic"
        )
