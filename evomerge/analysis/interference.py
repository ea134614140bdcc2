"""Interference: how the experts' task vectors get in one another's way, before anything is merged.

Everything follows from sums over parameters, so that places add up: tensors to layers, layers to
the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from evomerge.arrays import FloatArray
from evomerge.statistics.signs import SignCounts

__all__ = ["TOP", "Comparison", "Expert", "ExpertPair", "Interference", "Sums", "compare", "hint"]


TOP = 0.2  # share of each task vector's largest changes in a tensor, as TIES trims by default

_ALIKE, _OPPOSED = 0.3, -0.1  # cosines
_CONTESTED = 0.2  # share of the large changes; chance makes it 5 % for two experts, 11 % for three
_UNEVEN = 3.0  # ratio of norms
_CONCENTRATED = 0.8  # share of a squared norm


@dataclass(frozen=True, eq=False)
class Sums:
    """What is added up over the parameters of a part of the model.

    Attributes:
        base: Σ θ0².
        gram: (k, k) float64 inner products of the task vectors.
        top: (k,) float64 Σ τ² over the ``TOP`` largest changes.
        signs: Of all changes.
        top_signs: Of the ``TOP`` largest changes.
    """

    base: float
    gram: FloatArray
    top: FloatArray
    signs: SignCounts
    top_signs: SignCounts

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.base + other.base,
            self.gram + other.gram,
            self.top + other.top,
            self.signs + other.signs,
            self.top_signs + other.top_signs,
        )


@dataclass(frozen=True)
class Expert:
    """One task vector.

    Attributes:
        name: The expert.
        norm: ‖τ‖.
        relative_norm: ‖τ‖ / ‖θ0‖.
        top_mass: Share of ‖τ‖² in its largest changes.
    """

    name: str
    norm: float
    relative_norm: float
    top_mass: float


@dataclass(frozen=True)
class ExpertPair:
    """Two task vectors.

    Attributes:
        experts: Their names.
        cosine: Of the angle between them; 0 where one of them is 0.
        conflict: Share of the parameters both change whose signs differ; 0.5 is what chance does,
            NaN where they share none.
        top_conflict: The same among the largest changes of both.
    """

    experts: tuple[str, str]
    cosine: float
    conflict: float
    top_conflict: float


@dataclass(frozen=True)
class Interference:
    """How the experts interfere in a part of the model, or in all of it.

    Attributes:
        name: ``model``, ``layer 3``, ``embedding`` …
        experts: In recipe order.
        pairs: Every two of them.
        contested: Share of the parameters any expert changes that one raises and another lowers;
            NaN where none is changed.
        top_contested: The same among the largest changes.
        effective_rank: How many independent directions the experts span: 1 where all task vectors
            point the same way, their number where they are orthogonal; 0 where none moved.
    """

    name: str
    experts: tuple[Expert, ...]
    pairs: tuple[ExpertPair, ...]
    contested: float
    top_contested: float
    effective_rank: float


@dataclass(frozen=True)
class Comparison:
    """The experts of an experiment beside one another.

    Attributes:
        model: All parameters.
        parts: Layers in order, then what is outside.
        hint: What it means for the choice of method.
    """

    model: Interference
    parts: tuple[Interference, ...]
    hint: str


def compare(experts: Sequence[str], parts: Sequence[tuple[str, Sums]]) -> Comparison:
    """Describe the parts of a model and all of it.

    Args:
        experts: Names, at least one.
        parts: Name and sums of each part, at least one.
    """
    total = parts[0][1]
    for _, sums in parts[1:]:
        total = total + sums
    model = _interference("model", experts, total)
    return Comparison(
        model, tuple(_interference(name, experts, sums) for name, sums in parts), hint(model)
    )


def hint(model: Interference) -> str:
    """Say in a sentence or two what the numbers mean for the choice of method.

    Rules of thumb, not proofs: what scores best is what the search is for.
    """
    sentences = []
    if model.pairs:
        sentences.append(_direction_hint(model))
    norms = [expert.norm for expert in model.experts if expert.norm > 0]
    if norms and max(norms) > _UNEVEN * min(norms):
        largest = max(model.experts, key=lambda expert: expert.norm)
        sentences.append(
            f"{largest.name} moved {max(norms) / min(norms):.1f} times as far as the one that moved"
            " least and drowns it out: give each expert its own coefficient."
        )
    if model.experts and all(e.top_mass >= _CONCENTRATED for e in model.experts):
        share = min(expert.top_mass for expert in model.experts)
        sentences.append(
            f"The largest {TOP:.0%} of the changes hold {share:.0%} of every task vector or more: "
            "trimming (ties, breadcrumbs) costs little."
        )
    return " ".join(sentences)


def _direction_hint(model: Interference) -> str:
    cosine = float(np.mean([pair.cosine for pair in model.pairs]))
    contested = 0.0 if math.isnan(model.top_contested) else model.top_contested
    numbers = f"(mean cosine {cosine:.2f}, {contested:.0%} of their large changes contested)"
    if cosine <= _OPPOSED:
        return (
            f"The experts undo one another {numbers}: elect signs (ties, dare_ties, sce), or take "
            "layers whole from one of them (layer_swap)."
        )
    if cosine >= _ALIKE:
        return (
            f"The experts moved much the same way {numbers}: average them (linear, model_stock, "
            "slerp); a sum goes too far along what they share, so keep lambda below 1."
        )
    if contested >= _CONTESTED:
        return (
            f"The experts are nearly orthogonal, but often pull apart {numbers}: elect signs "
            "(ties, dare_ties, sce), then add up; averaging would shrink each."
        )
    return (
        f"The experts are nearly orthogonal and seldom pull apart {numbers}: add them up "
        "(task_arithmetic, dare_linear, breadcrumbs); averaging would shrink each."
    )


def _interference(name: str, experts: Sequence[str], sums: Sums) -> Interference:
    squares = np.diag(sums.gram)
    norms = np.sqrt(np.maximum(squares, 0.0))
    cosines = _ratio(sums.gram, np.outer(norms, norms))
    base = math.sqrt(sums.base)
    relative, top_mass = _ratio(norms, np.full_like(norms, base)), _ratio(sums.top, squares)
    return Interference(
        name=name,
        experts=tuple(
            Expert(expert, float(norms[i]), float(relative[i]), min(1.0, float(top_mass[i])))
            for i, expert in enumerate(experts)
        ),
        pairs=tuple(
            ExpertPair(
                (experts[i], experts[j]),
                float(cosines[i, j]),
                _share(sums.signs.opposed[i, j], sums.signs.shared[i, j]),
                _share(sums.top_signs.opposed[i, j], sums.top_signs.shared[i, j]),
            )
            for i, j in combinations(range(len(experts)), 2)
        ),
        contested=_share(sums.signs.contested, sums.signs.touched),
        top_contested=_share(sums.top_signs.contested, sums.top_signs.touched),
        effective_rank=_effective_rank(cosines[np.ix_(norms > 0, norms > 0)]),
    )


def _effective_rank(cosines: FloatArray) -> float:
    """Exponential of the entropy of the cosine matrix's eigenvalues.

    Source:
        Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    if not len(cosines):
        return 0.0
    shares = np.clip(np.linalg.eigvalsh(cosines), 0.0, None) / len(cosines)
    shares = shares[shares > 0]
    return float(np.exp(-np.sum(shares * np.log(shares))))


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """Divide; 0 where there is nothing to divide by."""
    found: FloatArray = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return found


def _share(part: np.integer | int, whole: np.integer | int) -> float:
    return float(part / whole) if whole else math.nan
