"""From the gradients of a live model to slopes along the recipe that it was merged from.

Gradients are reduced with the tensors that their parameters were merged from, and dropped, once
there are many enough that it is worth it (``GRADIENT_BYTES``): those of a small model after all
backward passes, those of a large one as they appear. So never do many of them exist.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
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

__all__ = ["GRADIENT_BYTES", "CandidateSlopes", "LiveGradients", "PlanSlopes", "watched"]

GRADIENT_BYTES = 64 << 20
"""Gradients that wait to be reduced together, beside the last one."""


class LiveGradients:
    """Hands on the gradients of a live model, cut into those of the tensors that it holds.

    Args:
        live: Tensors in the model whose gradients are wanted, by name.
        hand_on: Called with gradients by name: none of a tensor twice at once, but of one tensor
            more than once in all, if there are several backward passes. They are dropped then.
    """

    def __init__(
        self,
        live: Mapping[str, torch.Tensor],
        hand_on: Callable[[Mapping[str, torch.Tensor]], None],
    ) -> None:
        self._views, self._hand_on = live, hand_on
        self._names: dict[int, list[str]] = defaultdict(list)
        for name, view in self._views.items():
            self._names[_storage(view)].append(name)
        self._waiting: dict[int, torch.Tensor] = {}  # with their gradients, by where they are
        self._n_bytes = 0

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
        """Hand on all gradients that wait, and drop them."""
        gradients = {name: own for p in self._waiting.values() for name, own in self._parts(p)}
        self._waiting, self._n_bytes = {}, 0
        self._hand_on(gradients)

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


class PlanSlopes:
    """The slopes of an objective along the plans of a live model, added up over backward passes.

    Args:
        plans: By tensor name.
        tensors: Reads what they were merged from.
    """

    def __init__(self, plans: Mapping[str, TensorPlan], tensors: ReadTensors) -> None:
        self._plans, self._tensors = plans, tensors
        self.found: dict[str, Scalars] = {}

    def add(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Add the slopes through gradients by tensor name."""
        jobs = [self._job(name, own) for name, own in gradients.items()]
        for name, slopes in zip(gradients, slopes_all(jobs), strict=True):
            before = self.found.get(name)
            self.found[name] = slopes if before is None else Scalars.sum([before, slopes])

    def _job(self, name: str, gradient: torch.Tensor) -> SlopeJob:
        plan = self._plans[name]
        return SlopeJob(plan, *self._tensors(name, plan.prepared), gradient)


@contextmanager
def watched(parameters: Iterable[nn.Parameter], gradients: LiveGradients) -> Iterator[None]:
    """Watch backward passes inside; parameters that hold no tensor wanted get no gradient."""
    parameters = tuple(parameters)
    before = [parameter.requires_grad for parameter in parameters]
    with ExitStack() as hooks:
        for parameter in parameters:
            parameter.requires_grad_(gradients.holds(parameter))
            if parameter.requires_grad:
                hook = parameter.register_post_accumulate_grad_hook(gradients.take)
                hooks.callback(hook.remove)
        try:
            yield
            gradients.reduce()
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
