"""The merged matrix whose errors are smallest on what the experts' own rows span.

min_τ Σ ‖(τ − tᵢ) Fᵢᵀ‖² / ‖τᵢ‖², the loss of WUDI and OptMerge: with Cᵢ = FᵢᵀFᵢ / ‖τᵢ‖², C = Σ Cᵢ
and D = Σ tᵢ Cᵢ its gradient is 2 (τ C − D).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["InterferenceLoss", "adam", "sgd"]

Descent = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, eq=False)
class InterferenceLoss:
    """The loss for one matrix.

    Attributes:
        targets: tᵢ, (rows, columns) each.
        factors: Fᵢ / ‖τᵢ‖, (rank, columns) each.
    """

    targets: Sequence[torch.Tensor]
    factors: Sequence[torch.Tensor]

    @classmethod
    def of(
        cls,
        targets: Sequence[torch.Tensor],
        factors: Sequence[torch.Tensor],
        norms: Sequence[torch.Tensor],
    ) -> InterferenceLoss:
        """Divide by norms; an expert that did not change counts nothing."""
        scaled = [f / norm if norm > 0 else f * 0 for f, norm in zip(factors, norms, strict=True)]
        return cls(targets, scaled)

    def descend(self, start: torch.Tensor, step: Descent, n_steps: int) -> torch.Tensor:
        """Follow the gradient from a matrix; returns the last one."""
        found, slope = start.clone(), self._slope()
        for _ in range(n_steps):
            found -= step(slope(found))
        return found

    def solved(self, starts: Sequence[torch.Tensor], ridge: float) -> list[torch.Tensor]:
        """Find the minimum, pulled towards a start, as a sum of what each expert adds to it.

        Args:
            starts: What each expert adds to the start.
            ridge: Strength of the pull, relative to the mean eigenvalue of C; positive.

        Returns:
            (tᵢ Cᵢ + μ startᵢ) (C + μ I)⁻¹ for each expert.
        """
        curved = sum((f.T.double() @ f.double() for f in self.factors), torch.zeros(()).double())
        pull = ridge * float(curved.diagonal().mean())
        if pull <= 0:
            return list(starts)
        curved.diagonal().add_(pull)
        lower = torch.linalg.cholesky(curved)
        parts = zip(self.targets, self.factors, starts, strict=True)
        sums = ((t @ f.T).double() @ f.double() + pull * start.double() for t, f, start in parts)
        return [torch.cholesky_solve(each.T, lower).T.float().contiguous() for each in sums]

    def _slope(self) -> Descent:
        """Make the gradient, by whichever way has fewer products."""
        stacked = torch.cat(list(self.factors))
        pairs = zip(self.targets, self.factors, strict=True)
        wanted = sum(((t @ f.T) @ f for t, f in pairs), torch.zeros(()))
        if 2 * len(stacked) < stacked.shape[1]:
            return lambda matrix: 2 * ((matrix @ stacked.T) @ stacked - wanted)
        curved = stacked.T @ stacked
        return lambda matrix: 2 * (matrix @ curved - wanted)


def adam(rate: float) -> Descent:
    """Adam with its usual settings, as a step to subtract for each gradient."""
    first, second, n = torch.zeros(()), torch.zeros(()), 0

    def step(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal first, second, n
        n += 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient * gradient
        root = (second / (1 - 0.999**n)).sqrt()
        return rate * (first / (1 - 0.9**n)) / (root + 1e-8)

    return step


def sgd(rate: float, momentum: float) -> Descent:
    """Gradient descent with momentum, as a step to subtract for each gradient."""
    velocity = torch.zeros(())

    def step(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal velocity
        velocity = momentum * velocity + gradient
        return rate * velocity

    return step
