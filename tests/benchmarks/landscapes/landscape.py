"""A merge landscape in closed form: accuracy per task as a function of the genes.

Fitted to what ``collect`` measured on the embedded models. Per task the logit of the accuracy is
modelled by the kind of surrogate (quadratic, boosted trees, Gaussian process) that predicts
held-out points best. Scoring costs a millisecond and adds the noise of a finite set of items, so
hundreds of searches are affordable, and the true value of what they pick is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs.loaded import Loaded
from evomerge.samplers import GeneSpace
from evomerge.space.baselines import baselines
from evomerge.space.protocol import Params, SearchSpace
from tests.benchmarks.landscapes.collect import MEASURED

N_ITEMS = 150  # per task, as in the search split of the embedded models

FloatArray = NDArray[np.float64]


class _Surrogate(Protocol):
    def fit(self, points: FloatArray, values: FloatArray) -> object: ...
    def predict(self, points: FloatArray) -> FloatArray: ...


@dataclass(frozen=True)
class Fit:
    """How well a surrogate predicts points it has not seen.

    Attributes:
        task: Task name.
        kind: ``quadratic``, ``trees`` or ``smooth`` (a Gaussian process).
        r2: Of accuracies, five-fold.
        error: Root mean square error of accuracies, five-fold.
    """

    task: str
    kind: str
    r2: float
    error: float


class Landscape:
    """Accuracies of the merges of one search space.

    Args:
        name: Search space preset; ``measured/NAME.json`` holds its measurements.
    """

    def __init__(self, name: str) -> None:
        measured = json.loads((MEASURED / f"{name}.json").read_text())
        experiment = Presets().names("experiments")["quickstart"]
        loaded = Loaded.of(load_experiment(experiment, Presets(), [f"search_space={name}"]))
        self.space: SearchSpace = loaded.space
        self.genes = GeneSpace(self.space.distributions, self.space.defaults, self.space.depths)
        if measured["genes"] != list(self.genes.distributions):
            raise ValueError(f"{name} has other genes than were measured; run collect {name} again")
        self.tasks: tuple[str, ...] = tuple(measured["tasks"])
        rows = [dict(zip(measured["genes"], genes, strict=True)) for genes, _ in measured["rows"]]
        points = np.array([encoded(row, self.genes) for row in rows])
        accuracies = np.array([scores for _, scores in measured["rows"]])
        fitted = [
            _fitted(task, points, accuracies[:, i], measured["scales"][i])
            for i, task in enumerate(self.tasks)
        ]
        self.fits = tuple(fit for fit, _ in fitted)
        self._surrogates = [surrogate for _, surrogate in fitted]
        self._parents = [
            b.params for b in baselines(self.space, loaded.models) if b.params is not None
        ]

    def accuracies(self, params: Sequence[Params]) -> FloatArray:
        """Predict true accuracies; shape (points, tasks)."""
        points = np.array([encoded(self.genes.complete(p), self.genes) for p in params])
        predicted = [surrogate.predict(points) for surrogate in self._surrogates]
        return 1 / (1 + np.exp(-np.stack(predicted, axis=1)))

    @property
    def parents(self) -> Sequence[Params]:
        """Base, experts and uniform average, as far as the space can express them."""
        return self._parents

    @cached_property
    def parent_accuracies(self) -> FloatArray:
        """True accuracies of the parents; shape (parents, tasks)."""
        return self.accuracies(self._parents)


def encoded(params: Mapping[str, float | int | str], genes: GeneSpace) -> list[float]:
    """Turn params into features: numbers to [0, 1] by their range, one column per choice."""
    columns: list[float] = []
    for name, distribution in genes.distributions.items():
        if isinstance(distribution, CategoricalDistribution):
            columns += [float(params[name] == choice) for choice in distribution.choices]
        else:
            low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
            columns.append((float(params[name]) - low) / (high - low))
    return columns


def logits(accuracy: FloatArray) -> FloatArray:
    """Return log odds of accuracies on ``N_ITEMS``, finite at 0 and 1."""
    correct = accuracy * N_ITEMS
    return np.log((correct + 0.5) / (N_ITEMS - correct + 0.5))


def smooth_surrogate(scales: Sequence[float] | None, n_features: int) -> GaussianProcessRegressor:
    """Make a Gaussian process; its scales are optimised when fitted unless they are given.

    Args:
        scales: Logarithms of amplitude, length per feature and noise, as ``kernel_.theta``.
        n_features: Columns of the points.
    """
    kernel = ConstantKernel(4) * RBF(np.ones(n_features), (0.1, 100)) + WhiteKernel(0.1)
    if scales is None:
        return GaussianProcessRegressor(kernel, normalize_y=True)
    fixed = kernel.clone_with_theta(np.array(scales))
    return GaussianProcessRegressor(fixed, optimizer=None, normalize_y=True)


@lru_cache
def landscape(name: str) -> Landscape:
    """Fit a landscape once per process."""
    return Landscape(name)


def observed(true: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Draw accuracies on a finite set of items: binomial noise."""
    return rng.binomial(N_ITEMS, true) / N_ITEMS


def _fitted(
    task: str, points: FloatArray, accuracy: FloatArray, scales: Sequence[float]
) -> tuple[Fit, _Surrogate]:
    logit = logits(accuracy)
    kinds: dict[str, _Surrogate] = {
        "quadratic": make_pipeline(
            PolynomialFeatures(2, include_bias=False),
            StandardScaler(),
            RidgeCV(np.logspace(-2, 4, 13)),
        ),
        "trees": HistGradientBoostingRegressor(
            max_iter=200,
            learning_rate=0.08,
            max_leaf_nodes=12,
            l2_regularization=1.0,
            random_state=0,
        ),
        "smooth": smooth_surrogate(scales, points.shape[1]),
    }
    fits = {kind: _judged(task, kind, s, points, logit, accuracy) for kind, s in kinds.items()}
    best = max(fits.values(), key=lambda fit: fit.r2)
    kinds[best.kind].fit(points, logit)
    return best, kinds[best.kind]


def _judged(
    task: str,
    kind: str,
    surrogate: _Surrogate,
    points: FloatArray,
    logit: FloatArray,
    accuracy: FloatArray,
) -> Fit:
    folds = KFold(5, shuffle=True, random_state=0)
    predicted = 1 / (1 + np.exp(-cross_val_predict(surrogate, points, logit, cv=folds)))
    squares = np.square(predicted - accuracy)
    return Fit(task, kind, float(1 - squares.mean() / accuracy.var()), float(squares.mean() ** 0.5))
