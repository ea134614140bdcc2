"""Methods with data: what they prepare depends on what the experts compute on prompts.

A recipe of such a method names its prompts (``Recipe.prompts``). Each expert is run on them once,
and what is observed stands beside its task vectors (``TaskVectors.observed``).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from evomerge.methods.base import PerExpert
from evomerge.methods.declared import per_expert, shared
from evomerge.methods.prepared import PreparedMethod, TaskVectors

if TYPE_CHECKING:
    import torch

__all__ = ["Observed", "ObservedMethod", "off_diagonal"]

Observed: TypeAlias = "Mapping[str, Sequence[torch.Tensor]]"
"""By kind: what was observed of one tensor, one per expert."""


def off_diagonal(default: float) -> Any:
    """Declare ``off_diagonal``: what second moments off the diagonal are multiplied by."""
    doc = "what correlations are multiplied by: 0 leaves none, 1 all"
    return shared(default, doc, low=0.0, high=1.0, prepares=True)


@dataclass(frozen=True, kw_only=True)
class ObservedMethod(PreparedMethod):
    """A merge rule over task vectors that it prepares with what was observed of their models.

    ``coefficient`` multiplies what each expert adds to the solution, and costs nothing to vary;
    ``influence`` is how much an expert counts in the equations, solved anew for each value. At 1
    both are the published merge.
    """

    influence: PerExpert = per_expert(
        1.0,
        "how much each expert counts in the equations, which are solved anew for each value",
        low=0.0,
        high=1000.0,
        prepares=True,
    )

    def prepare(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.prepare``; without the first of ``observations`` as without data."""
        found = {
            kind: [read() for read in tensor.observed.get(kind, ())] for kind in self.observations
        }
        known = {
            kind: [one for one in several if one is not None] for kind, several in found.items()
        }
        whole: Observed = {kind: all_ for kind, all_ in known.items() if len(all_) == tensor.n}
        if self.observations[0] not in whole:
            return self.otherwise(tensor)
        return self.of_observed(tensor, whole)

    @abstractmethod
    def of_observed(self, tensor: TaskVectors, observed: Observed) -> Sequence[torch.Tensor]:
        """Prepare a tensor; see ``prepare``.

        Args:
            tensor: The experts' task vectors.
            observed: By kind; the first of ``observations`` is there, others may be absent.
        """

    def of_matrix(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.of_matrix``: of one that nothing was observed of."""
        return self.otherwise(tensor)

    def otherwise(self, tensor: TaskVectors) -> Sequence[torch.Tensor]:
        """See ``PreparedMethod.otherwise``: the mean, as influence weighs it."""
        from evomerge.methods.regression import shares_of

        shares = shares_of(self.influence)
        return [share * read() for share, read in zip(shares, tensor.read, strict=True)]
