"""Quadratic models of objectives over the unit cube, with their own idea of how sure they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from evomerge.arrays import FloatArray

__all__ = ["Surrogate", "fit_surrogates"]

Kernel = Callable[[FloatArray, FloatArray], FloatArray]

_FEWEST_MEASURED = 5  # values, before the error of a model of them alone is trusted
_RIDGES = np.logspace(-6, 3, 19)  # noise over signal; the error decides


def _linear(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(1.0 + a @ b.T / a.shape[1])


def _diagonal(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(_linear(a, b) + a**2 @ (b**2).T / a.shape[1])


def _full(a: FloatArray, b: FloatArray) -> FloatArray:
    shared = a @ b.T / a.shape[1]
    return np.asarray(1.0 + shared + shared**2)


# Ridge regression on all monomials of a kind, by their inner products: no more expensive with
# the 5000 monomials of 100 genes than with 100.
_KERNELS: Mapping[str, Kernel] = {"linear": _linear, "diagonal": _diagonal, "full": _full}


@dataclass(frozen=True)
class Surrogate:
    """A polynomial fitted to n points of d axes.

    Attributes:
        kind: ``linear``, ``diagonal`` (squares, no products) or ``full``.
        error: Mean squared error of predicting each point from the others; noisier ones count less.
        ridge: Strength of the penalty on coefficients.
        combination: (n,), of the kernel with the points.
        inverse: (n + m, n + m), of the kernel matrix of ``seen`` plus the ridge.
        seen: (n + m, d), in [-1, 1]: the points, then those that are being evaluated.
        scale: Variance of what one unit of the kernel explains.
    """

    kind: str
    error: float
    ridge: float
    combination: FloatArray
    inverse: FloatArray
    seen: FloatArray
    scale: float

    def predict(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Predict.

        Args:
            points: (k, d), in the unit cube.

        Returns:
            (k,) means and (k,) standard deviations, in units of the standardised values.
        """
        kernel, signed = _KERNELS[self.kind], 2 * points - 1
        near = kernel(signed, self.seen)
        mean = near[:, : len(self.combination)] @ self.combination
        prior = _own(self.kind, signed)
        explained = np.einsum("ij,ij->i", near @ self.inverse, near)
        return mean, np.sqrt(self.scale * np.maximum(prior - explained, 0.0))


def fit_surrogates(
    points: FloatArray,
    values: FloatArray,
    pending: FloatArray,
    variances: FloatArray | None = None,
) -> tuple[Surrogate, ...]:
    """Fit one polynomial per column of values; leave-one-out errors choose its kind and ridge.

    Args:
        points: (n, d), in the unit cube.
        values: (n, k), standardised.
        pending: (m, d), points whose values are not known yet; predictions near them are surer.
        variances: (n, k), of values that were predicted instead of measured; 0 for measured ones.
            Values count the less, the larger these are beside the error of the model itself.

    Source:
        Li et al. 2024, "MAP: Low-compute model merging with amortized Pareto fronts via quadratic
        approximation", arXiv:2406.07529; leave-one-out: Allen 1974 (PRESS); points that wait:
        Desautels et al. 2014, "Parallelizing exploration-exploitation tradeoffs", JMLR 15.
    """
    signed, seen = 2 * points - 1, 2 * np.vstack([points, pending]) - 1
    if variances is None or not variances.any():
        noise = np.ones(len(points))
        spectra = _spectra(signed, noise)
        return tuple(_fit(column, seen, noise, spectra) for column in values.T)
    columns = zip(values.T, variances.T, strict=True)
    noises = [(column, _noise(signed, column, variance)) for column, variance in columns]
    return tuple(_fit(column, seen, noise, _spectra(signed, noise)) for column, noise in noises)


def _noise(signed: FloatArray, values: FloatArray, variances: FloatArray) -> FloatArray:
    """Return the (n,) noise of each value, relative to the error of a model of measured ones."""
    measured = variances == 0
    error = 1.0  # all there is to explain
    if measured.sum() >= _FEWEST_MEASURED:
        spectra = _spectra(signed[measured], np.ones(measured.sum()))
        error = _best_fit(values[measured], spectra)[2]
    return np.asarray(1.0 + variances / max(error, 1e-6))


def _spectra(signed: FloatArray, noise: FloatArray) -> Mapping[str, tuple[FloatArray, FloatArray]]:
    """Decompose each kind's kernel matrix, in units in which every value is as noisy as another."""
    units = np.sqrt(np.outer(noise, noise))
    return {k: np.linalg.eigh(kernel(signed, signed) / units) for k, kernel in _KERNELS.items()}


def _best_fit(
    values: FloatArray, spectra: Mapping[str, tuple[FloatArray, FloatArray]]
) -> tuple[str, float, float]:
    """Choose kind and ridge; returns them and the error."""
    return min(
        (
            (kind, float(ridge), _left_out_error(*spectrum, values, ridge))
            for kind, spectrum in spectra.items()
            for ridge in _RIDGES
        ),
        key=lambda choice: choice[2],
    )


def _fit(
    values: FloatArray,
    seen: FloatArray,
    noise: FloatArray,
    spectra: Mapping[str, tuple[FloatArray, FloatArray]],
) -> Surrogate:
    units = np.sqrt(noise)
    kind, ridge, error = _best_fit(values / units, spectra)
    eigenvalues, axes = spectra[kind]
    combination = axes @ ((axes.T @ (values / units)) / (eigenvalues + ridge)) / units
    kernel_matrix = _KERNELS[kind](seen, seen)
    every = np.append(noise, np.ones(len(seen) - len(noise)))
    return Surrogate(
        kind=kind,
        error=error,
        ridge=ridge,
        combination=combination,
        inverse=np.asarray(np.linalg.inv(kernel_matrix + ridge * np.diag(every)), np.float64),
        seen=seen,
        scale=float(values @ combination) / len(values),
    )


def _left_out_error(
    eigenvalues: FloatArray, axes: FloatArray, values: FloatArray, ridge: float
) -> float:
    shrunk = np.maximum(eigenvalues, 0.0)
    kept = shrunk / (shrunk + ridge)
    residual = values - axes @ (kept * (axes.T @ values))
    leverage = axes**2 @ kept
    return float(np.mean((residual / np.maximum(1.0 - leverage, 1e-9)) ** 2))


def _own(kind: str, signed: FloatArray) -> FloatArray:
    """Return the kernel of each point with itself, (k,)."""
    n_axes, squares = signed.shape[1], signed**2
    shared = squares.sum(axis=1) / n_axes
    more = {"linear": 0.0, "diagonal": (squares**2).sum(axis=1) / n_axes, "full": shared**2}
    return np.asarray(1.0 + shared + more[kind])
