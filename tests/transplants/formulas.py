"""How a vector is made of others, as published, in float64 and one step at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def orthogonal_pursuit(target: Array, atoms: Array, k: int) -> Array:
    """Coefficients of all atoms by orthogonal matching pursuit; least squares at every step."""
    chosen: list[int] = []
    left, found = target, np.zeros(0)
    for _ in range(k):
        products = np.abs(atoms @ left)
        products[chosen] = -1
        chosen.append(int(products.argmax()))
        found = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
        left = target - found @ atoms[chosen]
    out = np.zeros(len(atoms))
    out[chosen] = found
    return out


def nearest(target: Array, atoms: Array, k: int) -> Array:
    """Coefficients of all atoms: the k nearest, by one over their distance, adding up to 1."""
    distances = np.linalg.norm(atoms - target, axis=1)
    chosen = np.argsort(distances)[:k]
    out = np.zeros(len(atoms))
    out[chosen] = 1 / distances[chosen]
    return out / out.sum()
