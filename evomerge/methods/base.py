"""What a merge method is: declared parameters, and a lowering to one elementwise pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.errors import Fault
from evomerge.kernels.plan import TensorPlan
from evomerge.methods.declared import (
    Declared,
    Parameter,
    ParameterValue,
    PerExpert,
    Scalar,
    choice,
    per_expert,
    shared,
)
from evomerge.seeds import seed_for

if TYPE_CHECKING:
    from evomerge.statistics.tensor import TensorStatistics

__all__ = [
    "Method",
    "Parameter",
    "ParameterValue",
    "PerExpert",
    "Scalar",
    "TensorContext",
    "choice",
    "per_expert",
    "shared",
]


@dataclass(frozen=True)
class TensorContext:
    """Everything about one tensor that a lowering may use besides the method's parameters.

    Attributes:
        name: Tensor name.
        experts: Expert names in recipe order.
        statistics: Candidate-independent statistics; of prepared task vectors, if the method adds
            up such.
        seed: The recipe's seed, for random masks.
        layer: Position of the decoder layer it belongs to; ``None`` outside the layers
            (embeddings, final norm, head).
        n_layers: Number of decoder layers of the model.
        is_embedding: Whether its rows are looked up: its inputs are rows, those of other matrices
            columns.
    """

    name: str
    experts: tuple[str, ...]
    statistics: TensorStatistics
    seed: int
    layer: int | None = None
    n_layers: int = 1
    is_embedding: bool = False

    @property
    def has_base(self) -> bool:
        """Whether there is a base to subtract."""
        return self.statistics.n_models > self.statistics.n_experts

    def mask_key(self, expert: int) -> int:
        """Name the random stream of one expert's mask on this tensor."""
        return seed_for(self.seed, "mask", self.experts[expert], self.name)


@dataclass(frozen=True, kw_only=True)
class Method(Declared, ABC):
    """A merge rule with its parameters bound.

    A subclass declares its parameters as fields and its description as class variables; it is
    found by its ``name`` through the table in ``methods.registry``. Parameters of the same name
    mean the same in every method.

    Attributes:
        name: snake_case, from the literature.
        summary: What it does, in a few words.
        formula: One line; θ₀ base, θᵢ experts, τᵢ = θᵢ − θ₀, cᵢ coefficients, mᵢ masks.
        source: Where it was published.
        covers: Published methods that are this operation on other inputs. A method whose own rule
            finds the coefficients, or acts while training, is none of them.
        statistics: Members of ``TensorStatistics`` that lowering may ask for.
        observations: What experts must be observed on prompts for (``observation.kinds``).
        needs_base: Whether it reads a base.
        n_experts: Fewest and most experts it merges; ``None``: any number.
    """

    summary: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]
    covers: ClassVar[tuple[str, ...]] = ()
    statistics: ClassVar[tuple[str, ...]] = ()
    observations: ClassVar[tuple[str, ...]] = ()
    needs_base: ClassVar[bool] = True
    n_experts: ClassVar[tuple[int, int | None]] = (1, None)

    @abstractmethod
    def lower(self, tensor: TensorContext) -> TensorPlan:
        """Turn the bound parameters and the tensor's statistics into one elementwise pass."""

    @property
    def prepared(self) -> str | None:
        """Name what its plans add up instead of the experts' own tensors (``methods.prepared``)."""
        return None

    def statistics_used(self) -> tuple[str, ...]:
        """Name those of ``statistics`` that the bound parameter values ask for.

        A statistic with a parameter of its own is named with it, e.g. ``activity 1e-05``, see
        ``StatisticName``.
        """
        return self.statistics

    @classmethod
    def requires_base(cls, n_experts: int) -> bool:
        """Tell whether a recipe with this many experts must name a base."""
        del n_experts
        return cls.needs_base

    @classmethod
    def faults(cls, values: Mapping[str, ParameterValue], experts: Sequence[str]) -> list[Fault]:
        """List what is wrong with parameters, by their names, and with the number of experts."""
        fewest, most = cls.n_experts
        found = super().faults(values, experts)
        if len(experts) < fewest or (most is not None and len(experts) > most):
            wanted = f"{fewest}" if fewest == most else f"{fewest} to {most or 'any number of'}"
            text = f"{cls.name} merges {wanted} experts, got {len(experts)}"
            found.insert(0, Fault((), text))
        return found
