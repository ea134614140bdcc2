"""Methods of matrix algebra: task vectors that are prepared once, then merged by the one pass.

What such a method does to a matrix is no elementwise pass. But with its bases held it is linear in
what each expert contributes, so that there is one prepared task vector per expert, and a merge is
their weighted sum. They are computed tensor by tensor, once for the same tensors and the same
values of the parameters that say ``prepares=True``, and kept on disk for all processes
(``merging.prepared``). All other parameters are numbers of the pass: genes, with slopes.

The statistics that a lowering, or a modifier, sees are those of the prepared task vectors.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import Method, ParameterValue, PerExpert, Scalar, TensorContext
from evomerge.methods.parameters import coefficient, lambda_scale
from evomerge.methods.registry import method

if TYPE_CHECKING:
    import torch

__all__ = ["FactorPair", "Preparation", "PreparedMethod", "TaskVectors"]

_WORD = "prepared"  # begins what names a preparation among statistics

FactorPair: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
"""(rows, rank) and (rank, columns) float32; their product is a task vector."""


@dataclass(frozen=True)
class TaskVectors:
    """The task vectors of one tensor, as a preparation reads them; nothing is kept of them.

    Attributes:
        shape: Of the tensor.
        read: Per expert, in recipe order, returns its task vector: float32, of that shape.
        read_factors: Per expert, returns the factors of its task vector, or ``None`` where it is
            no product of two that are known.
        observed: By kind, per expert, returns what was observed of its model on prompts
            (``methods.observed``), or ``None`` where nothing is of such a tensor.
    """

    shape: tuple[int, ...]
    read: Sequence[Callable[[], torch.Tensor]]
    read_factors: Sequence[Callable[[], FactorPair | None]]
    observed: Mapping[str, Sequence[Callable[[], torch.Tensor | None]]] = field(
        default_factory=dict
    )

    @property
    def n(self) -> int:
        """Number of experts."""
        return len(self.read)

    @property
    def is_matrix(self) -> bool:
        """Whether there is a matrix to do algebra with: two dimensions, and not empty."""
        return len(self.shape) == 2 and min(self.shape) > 0

    def all(self) -> list[torch.Tensor]:
        """Read the task vectors of all experts."""
        return [read() for read in self.read]


@dataclass(frozen=True)
class Preparation:
    """What decides prepared task vectors besides the tensors: a method and fixed values.

    Attributes:
        method: Name of a method that prepares.
        values: Of its parameters that decide them; one per expert in recipe order.
    """

    method: str
    values: Mapping[str, Scalar | PerExpert]

    def __str__(self) -> str:
        """Write it in one line, e.g. ``prepared tsv_m {"rank_share":1.0}``."""
        values = json.dumps(self.values, sort_keys=True, separators=(",", ":"))
        return f"{_WORD} {self.method} {values}"

    @classmethod
    def parse(cls, text: str) -> Preparation | None:
        """Read what ``str`` has written; ``None`` for names of statistics."""
        word, _, rest = text.partition(" ")
        if word != _WORD:
            return None
        name, _, values = rest.partition(" ")
        found = json.loads(values)
        return cls(name, {n: tuple(v) if isinstance(v, list) else v for n, v in found.items()})

    @property
    def observations(self) -> tuple[str, ...]:
        """Name what must be observed of the experts for it."""
        return method(self.method).observations

    def run(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """Prepare one tensor; see ``PreparedMethod.prepare``."""
        experts = [str(i) for i in range(tensor.n)]
        values: dict[str, ParameterValue] = {
            name: dict(zip(experts, value, strict=True)) if isinstance(value, tuple) else value
            for name, value in self.values.items()
        }
        bound = method(self.method).bind(values, experts)
        assert isinstance(bound, PreparedMethod), "or nothing would have been prepared"
        return bound.prepare(tensor)


@dataclass(frozen=True, kw_only=True)
class PreparedMethod(Method):
    """A merge rule over task vectors that it prepares; a subclass writes ``of_matrix``.

    ``prepare`` is a function of the task vectors and of the parameters declared with
    ``prepares=True``: the others have their defaults there, whatever a recipe says.
    """

    statistics: ClassVar[tuple[str, ...]] = (_WORD,)

    coefficient: PerExpert = coefficient("what each prepared task vector is multiplied by")
    lambda_: float = lambda_scale()

    @property
    def preparation(self) -> Preparation:
        """What has to be prepared for these parameters."""
        return Preparation(self.name, {n: self.prepared_value(n) for n in self.prepared_values()})

    def prepared_values(self) -> tuple[str, ...]:
        """Name the parameters that the preparation depends on, given the values of all.

        A method overrides it where some count only with certain values of others.
        """
        return tuple(name for name, p in self.parameters().items() if p.prepares)

    @property
    def prepared(self) -> str:
        """See ``Method.prepared``."""
        return str(self.preparation)

    def prepared_value(self, name: str) -> Scalar | PerExpert:
        """Return the value of a parameter as the preparation gets it; one for all that are alike.

        A method overrides it where several values mean the same.
        """
        return self.value(name)

    def statistics_used(self) -> tuple[str, ...]:
        """See ``Method.statistics_used``: what has to be prepared."""
        return (self.prepared,)

    def lower(self, tensor: TensorContext) -> TensorPlan:
        """See ``Method.lower``: the sum of what is prepared."""
        del tensor
        return TensorPlan(
            coefficients=self.coefficient,
            delta=False,
            scale=self.lambda_,
            prepared=self.prepared,
        )

    def prepare(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """Compute the task vectors that the pass adds up, one per expert.

        Args:
            tensor: The experts' task vectors.

        Returns:
            One per expert, in recipe order: float32, of the shape of the tensor, finite.
        """
        return self.of_matrix(tensor) if tensor.is_matrix else self.otherwise(tensor)

    @abstractmethod
    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """Prepare a matrix; see ``prepare``."""

    def otherwise(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """Prepare what is no matrix: by default for the mean of the experts."""
        return [read() / tensor.n for read in tensor.read]
