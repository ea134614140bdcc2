"""Steps of a mask's logits along the loss of the merge under it.

The merge is θ₀ + Σ c τ ⊙ m / mean(m), tensor by tensor, with one mask m for all experts. Gradients
of the live model are turned into slopes of the logits as they appear, so that never do many exist.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from evomerge.concrete.relaxed import (
    discrete,
    logistic_noise,
    logit_slopes,
    relaxed,
    rescaled,
)
from evomerge.concrete.settings import MaskSettings
from evomerge.errors import EvaluationError
from evomerge.merging.slopes import LiveGradients, watched
from evomerge.merging.sources import Sources
from evomerge.recipe.path import BASE
from evomerge.seeds import seed_for

if TYPE_CHECKING:
    from evomerge.evaluation.losses import Losses
    from evomerge.merging.candidate import LiveCandidate

__all__ = ["MaskLearner"]

_Take = Callable[[str, torch.Tensor], None]


class MaskLearner:
    """Learns a mask on the items of objectives.

    Memory beside the live model: five numbers in float32 per parameter, for logits, their slopes,
    Adam's two moments and the mask. Task vectors are read of the models' files in each step.

    Args:
        sources: Base and experts.
        candidate: Live model, which is overwritten.
        losses: Of the objectives, of which those that have a slope are added up.
        settings: How to learn.
    """

    def __init__(
        self, sources: Sources, candidate: LiveCandidate, losses: Losses, settings: MaskSettings
    ) -> None:
        self._sources, self._model, self._losses = sources, candidate.model, losses
        self._settings, self._live = settings, candidate.tensors
        self._logits = {n: torch.zeros(t.shape, device=t.device) for n, t in self._live.items()}
        self._adam = torch.optim.Adam(self._logits.values(), lr=settings.rate)
        self._masks: dict[str, torch.Tensor] = {}
        self._coefficients: dict[str, torch.Tensor] = {}  # (experts,) of each tensor

    def learn(self, progress: Callable[[int, int], None]) -> tuple[float, ...]:
        """Take all steps.

        Args:
            progress: Called with (steps done, steps in all).

        Returns:
            The loss of the merge in each step: the sum over objectives of the mean over items.

        Raises:
            EvaluationError: A loss is not finite.
        """
        found = []
        for step in range(self._settings.steps):
            found.append(self._step(step))
            progress(step + 1, self._settings.steps)
        return tuple(found)

    @torch.no_grad()
    def mask(self, name: str) -> torch.Tensor:
        """Draw the final mask of one tensor, rescaled: float32, on the CPU."""
        logits, settings = self._logits[name].cpu(), self._settings
        noise = logistic_noise(tuple(logits.shape), settings.seed, "final", name)
        if settings.final == "discrete":
            return rescaled(discrete(logits, noise))
        return rescaled(relaxed(logits, noise, settings.temperature))

    def _step(self, step: int) -> float:
        self._draw(step)
        start, n = self._settings.coefficient, len(self._sources.experts)
        self._coefficients = {name: torch.full((n,), start) for name in self._live}
        if self._settings.inner_rate:
            along = {name: torch.zeros(n) for name in self._live}
            self._backward(step, "inner", partial(self._add_coefficients, along))
            for name, slopes in along.items():
                self._coefficients[name] -= self._settings.inner_rate * slopes
        self._adam.zero_grad()
        loss = self._backward(step, "mask", self._add_logits)
        self._adam.step()
        return loss

    @torch.no_grad()
    def _draw(self, step: int) -> None:
        """Draw the step's mask."""
        settings = self._settings
        for name, logits in self._logits.items():
            noise = logistic_noise(tuple(logits.shape), settings.seed, "mask", step, name)
            self._masks[name] = relaxed(logits, noise.to(logits.device), settings.temperature)

    def _backward(self, step: int, what: str, take: _Take) -> float:
        """Merge, and run some items of every objective backward.

        Args:
            step: Its number.
            what: The items are for.
            take: Called with the gradient of each tensor of the live model, maybe in parts, of
                which it makes a sum.
        """
        self._fill()

        def hand_over(gradients: Mapping[str, torch.Tensor]) -> None:
            with torch.no_grad():
                for name, gradient in gradients.items():
                    take(name, gradient.float())

        gradients, losses = LiveGradients(self._live, hand_over), self._losses
        with watched(self._model.parameters(), gradients), torch.enable_grad():
            found = [
                losses.backward(k, self._rows(step, what, k))
                for k, n in enumerate(losses.n_items)
                if n
            ]
        if not np.isfinite(found).all():
            raise EvaluationError(
                f"expected finite losses, got {found} in step {step}; choose a smaller rate"
            )
        return float(sum(found))

    def _rows(self, step: int, what: str, k: int) -> Sequence[int]:
        n = self._losses.n_items[k]
        draws = np.random.default_rng(seed_for(self._settings.seed, "items", what, step, k))
        return sorted(draws.choice(n, min(n, self._settings.items), replace=False).tolist())

    @torch.no_grad()
    def _fill(self) -> None:
        for name, view in self._live.items():
            base = self._sources.tensor(BASE, name).to(view.device).float()
            changed = base + rescaled(self._masks[name]) * self._change(name)
            view.copy_(changed)

    def _task_vectors(self, name: str) -> torch.Tensor:
        """Read (experts, …) of a tensor."""
        base, experts = self._sources.tensors(name)
        assert base is not None, "it was checked"
        device = self._live[name].device
        own = [expert.to(device).float() for expert in experts]
        return torch.stack(own) - base.to(device).float()

    def _change(self, name: str) -> torch.Tensor:
        """Add up what the experts change of a tensor, by their coefficients."""
        vectors = self._task_vectors(name)
        coefficients = self._coefficients[name].to(vectors.device)
        total: torch.Tensor = torch.tensordot(coefficients, vectors, dims=1)
        return total

    def _add_logits(self, name: str, gradient: torch.Tensor) -> None:
        mask, logits = self._masks[name], self._logits[name]
        slopes = logit_slopes(mask, gradient * self._change(name), self._settings.temperature)
        logits.grad = slopes if logits.grad is None else logits.grad + slopes

    def _add_coefficients(
        self, along: dict[str, torch.Tensor], name: str, gradient: torch.Tensor
    ) -> None:
        weighed = gradient * rescaled(self._masks[name])
        n = gradient.dim()
        along[name] += torch.tensordot(self._task_vectors(name), weighed, dims=n).cpu()
