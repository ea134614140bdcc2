"""From the gradients of a live model to slopes along the recipe that it was merged from.

Gradients are reduced with the tensors that their parameters were merged from, and dropped, once
there are many enough that it is worth it (``GRADIENT_BYTES``): those of a small model after all
backward passes, those of a large one as they appear. So never do many of them exist.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn

from evomerge.kernels.choice import slopes_all
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.plan import TensorPlan
from evomerge.kernels.scalars import Scalars
from evomerge.merging.feeding import ReadTensors
from evomerge.merging.lowering import parameter_slopes
from evomerge.merging.sources import Sources
from evomerge.recipe.path import Hop, cumulative_scales
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.slopes import RecipeSlopes

__all__ = ["GRADIENT_BYTES", "CandidateSlopes", "PlanSlopes", "watched"]

GRADIENT_BYTES = 64 << 20
"""Gradients that wait to be reduced together, beside the last one."""


class PlanSlopes:
    """The slopes of an objective along the plans of a live model, added up over backward passes.

    Args:
        plans: By tensor name.
        live: The merged tensors in the model, by name.
        tensors: Reads what they were merged from.
    """

    def __init__(
        self,
        plans: Mapping[str, TensorPlan],
        live: Mapping[str, torch.Tensor],
        tensors: ReadTensors,
    ) -> None:
        self._plans, self._tensors = plans, tensors
        self._views = {name: live[name] for name in plans if name in live}
        self._names: dict[int, list[str]] = defaultdict(list)
        for name, view in self._views.items():
            self._names[_storage(view)].append(name)
        self._waiting: dict[int, torch.Tensor] = {}  # with their gradients, by where they are
        self._n_bytes = 0
        self.found: dict[str, Scalars] = {}

    def holds(self, parameter: nn.Parameter) -> bool:
        """Tell whether a parameter of the model holds tensors that are watched."""
        return _storage(parameter) in self._names

    def take(self, parameter: torch.Tensor) -> None:
        """Take a gradient, which torch calls this with once it is complete in a backward pass."""
        if _storage(parameter) not in self._waiting:  # else torch has added to the one that waits
            self._waiting[_storage(parameter)] = parameter
            self._n_bytes += parameter.nbytes
        if self._n_bytes > GRADIENT_BYTES:
            self.reduce()

    def reduce(self) -> None:
        """Add the slopes through all gradients that wait, and drop these."""
        gradients = {name: own for p in self._waiting.values() for name, own in self._parts(p)}
        self._waiting, self._n_bytes = {}, 0
        jobs = [self._job(name, own) for name, own in gradients.items()]
        for name, slopes in zip(gradients, slopes_all(jobs), strict=True):
            before = self.found.get(name)
            self.found[name] = slopes if before is None else Scalars.sum([before, slopes])

    def _job(self, name: str, gradient: torch.Tensor) -> SlopeJob:
        plan = self._plans[name]
        return SlopeJob(plan, *self._tensors(name, plan.prepared), gradient)

    def _parts(self, parameter: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Cut a parameter's gradient into those of the tensors it holds; it has none afterwards."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None, "one that waits has a gradient"
        laid_out = torch.empty_like(parameter, memory_format=torch.preserve_format)
        laid_out = gradient if gradient.stride() == laid_out.stride() else laid_out.copy_(gradient)
        for name in self._names[_storage(parameter)]:
            view = self._views[name]
            offset = view.storage_offset() - parameter.storage_offset() + laid_out.storage_offset()
            yield name, laid_out.as_strided(view.shape, view.stride(), offset)


@contextmanager
def watched(parameters: Iterable[nn.Parameter], slopes: PlanSlopes) -> Iterator[None]:
    """Let backward passes inside add to slopes; parameters that are not merged get no gradient."""
    parameters = tuple(parameters)
    before = [parameter.requires_grad for parameter in parameters]
    with ExitStack() as hooks:
        for parameter in parameters:
            parameter.requires_grad_(slopes.holds(parameter))
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(slopes.take)
                hooks.callback(hook.remove)
        try:
            yield
            slopes.reduce()
        finally:
            for parameter, required in zip(parameters, before, strict=True):
                parameter.requires_grad_(required).grad = None


def _hop_slopes(path: tuple[Hop, ...], leaves: tuple[torch.Tensor, ...]) -> tuple[float, ...]:
    """Turn slopes along cumulative scales into slopes along the hops' own.

    A hop's scale is a factor of every cumulative scale S_u from its own on, so the slope along it
    is Σ_{u ≥ t} (dL/dS_u) S_u / scale_t.

    Args:
        path: The hops.
        leaves: Their cumulative scales, after backward passes; empty if the family has none.
    """
    if not leaves:
        return ()
    slopes = [0.0 if leaf.grad is None else float(leaf.grad) for leaf in leaves]
    products = [s * slope for s, slope in zip(cumulative_scales(path), slopes, strict=True)]
    from_here_on = [*accumulate(reversed(products))][::-1]
    return tuple(total / hop.scale for total, hop in zip(from_here_on, path, strict=True))


@dataclass(frozen=True)
class CandidateSlopes:
    """The slopes of an objective along a candidate's recipe, in the making.

    Attributes:
        recipe: What the candidate was merged from.
        sources: Its models.
        plans: Slopes along the plans so far.
        scales: Cumulative scales of the path with the slopes along them so far.
    """

    recipe: Recipe
    sources: Sources
    plans: PlanSlopes
    scales: tuple[torch.Tensor, ...]

    def along_recipe(self) -> RecipeSlopes:
        """Return the slopes along every number of the recipe that has one."""
        tensors = {
            name: parameter_slopes(self.recipe, self.sources, name, slopes)
            for name, slopes in sorted(self.plans.found.items())
        }
        return RecipeSlopes(tensors, _hop_slopes(self.recipe.path, self.scales))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
