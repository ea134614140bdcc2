"""Least squares over several experts: each matrix as its own inputs want it.

Of an expert's matrix W (outputs, inputs) and the second moment G = E[x xᵀ] of its inputs, the one
matrix that does nearest to what all do minimises Σ λᵢ tr (W − Wᵢ) Gᵢ (W − Wᵢ)ᵀ. It is linear in the
matrices, and so in the task vectors, each of which has a share of it.

Source: Jin et al. 2023, Dataless Knowledge Fusion by Merging Weights of Language Models (RegMean),
arXiv:2212.09849.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["damped", "regressed", "regression_bytes", "shares_of", "with_off_diagonal"]

# Far below what inputs show. Sums in float32 may be short of positive by their rounding; then more.
_RIDGES = (1e-9, 1e-7, 1e-6, 1e-5, 1e-4)


def with_off_diagonal(gram: torch.Tensor, factor: float) -> torch.Tensor:
    """Multiply what is off the diagonal.

    Args:
        gram: (n, n).
        factor: 1 leaves it, 0 takes inputs for uncorrelated.

    Returns:
        (n, n) float64.
    """
    wide = gram.double()
    return factor * wide + (1.0 - factor) * torch.diag(wide.diagonal())


def shares_of(influence: Sequence[float]) -> list[float]:
    """Divide numbers by their sum, where it is not 0."""
    total = sum(influence)
    return [one / total if total else 0.0 for one in influence]


def damped(
    grams: Sequence[torch.Tensor], influence: Sequence[float], ridge: float
) -> list[torch.Tensor]:
    """Weigh second moments, and share out among them what makes their sum regular.

    It leaves the weighted mean in directions that no expert has inputs in.

    Args:
        grams: (n, n) float64, one per expert.
        influence: How much each counts.
        ridge: How much, as a share of each input's own second moment.

    Returns:
        (n, n), one per expert.
    """
    weighed = [one * gram for one, gram in zip(influence, grams, strict=True)]
    sizes = torch.stack([gram.diagonal() for gram in weighed]).sum(0)
    added = torch.diag(torch.where(sizes > 0, ridge * sizes, 1.0))  # 1: any number gives the mean
    shares = shares_of(influence)
    return [gram + own * added for gram, own in zip(weighed, shares, strict=True)]


def regression_bytes(shape: Sequence[int], n: int) -> int:
    """Reckon the peak memory of ``regressed``, from above.

    Args:
        shape: (outputs, inputs).
        n: Experts.

    Returns:
        Bytes: second moments as they are solved with, three times per expert, and their sum; task
        vectors, and what they become.
    """
    outputs, inputs = shape
    return 8 * (3 * n + 4) * inputs * inputs + 28 * n * outputs * inputs


def regressed(
    task_vectors: Sequence[torch.Tensor],
    grams: Sequence[torch.Tensor],
    influence: Sequence[float],
    off_diagonal: float = 1.0,
) -> list[torch.Tensor]:
    """Share out the solution: the merge is the base plus the sum of what is returned.

    Args:
        task_vectors: (outputs, inputs), one per expert.
        grams: (inputs, inputs), positive semi-definite, one per expert.
        influence: λ, one per expert, 0 or more.
        off_diagonal: See ``with_off_diagonal``.

    Returns:
        τᵢ λᵢGᵢ (Σ λⱼGⱼ)⁻¹ in float32, one per expert.
    """
    if not any(influence):
        return [torch.zeros_like(one, dtype=torch.float32) for one in task_vectors]
    softened = [with_off_diagonal(gram, off_diagonal) for gram in grams]
    for ridge in _RIDGES:
        own = damped(softened, influence, ridge)
        factor, failed = torch.linalg.cholesky_ex(torch.stack(own).sum(0))
        if not failed:
            break
    return [
        torch.cholesky_solve(gram @ vector.double().T, factor).T.float().contiguous()
        for vector, gram in zip(task_vectors, own, strict=True)
    ]
