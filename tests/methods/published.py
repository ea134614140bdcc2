"""Every method as its paper writes it: float64, whole arrays, sorting, no statistics.

Arguments: ``b`` the base and ``xs`` the experts, (rows, columns) float64; then the parameters.
Random masks come in as arguments, as they are no part of a formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

A = NDArray[np.float64]
Mask = NDArray[np.bool_]
Numbers = Sequence[float]


def taus(b: A, xs: Sequence[A]) -> list[A]:
    return [x - b for x in xs]


# --- weighted sums ---


def linear(xs: Sequence[A], c: Numbers) -> A:
    return sum(w * x for w, x in zip(c, xs, strict=True)) / sum(c)


def task_arithmetic(b: A, xs: Sequence[A], c: Numbers, scale: float = 1.0) -> A:
    return b + scale * sum(w * t for w, t in zip(c, taus(b, xs), strict=True))


# --- trims ---


def largest(t: A, share: float) -> Mask:
    """Mark the share of largest magnitudes, by sorting; a part of an element counts nothing."""
    return between(t, 0, int(share * t.size))


def between(t: A, first: int, last: int) -> Mask:
    """Mark the places ``first`` to ``last`` (excluded) in the descending order of magnitudes."""
    order = np.argsort(-np.abs(t).reshape(-1), kind="stable")
    mask = np.zeros(t.size, bool)
    mask[order[first:last]] = True
    return mask.reshape(t.shape)


def without_outliers(t: A, share: float, top: float) -> Mask:
    """Mark the share of largest magnitudes that come after the top ones."""
    kept = int(share * t.size)
    dropped = min(int(top * t.size), t.size - kept)
    return between(t, dropped, dropped + kept)


def in_each_row(t: A, share: float, top: float) -> Mask:
    return np.stack([without_outliers(row[None], share, top)[0] for row in t])


def row_ranks(t: A) -> A:
    """Rank magnitudes within rows, 0 for the smallest to 1 for the largest."""
    return np.argsort(np.argsort(np.abs(t), axis=1), axis=1) / (t.shape[1] - 1)


# --- combinations of kept task vectors ---


def summed(b: A, kept: Sequence[A], c: Numbers, scale: float = 1.0) -> A:
    return b + scale * sum(w * t for w, t in zip(c, kept, strict=True))


def elected(
    b: A,
    kept: Sequence[A],
    c: Numbers,
    *,
    scale: float = 1.0,
    normalize: bool = True,
    vote: str = "weighted",
    zero: int = 1,
) -> A:
    """Elect a sign element by element, then average (or sum) those that have it."""
    out = b.copy()
    for at in np.ndindex(b.shape):
        values = [t[at] for t in kept]
        votes = {
            "weighted": sum(w * v for w, v in zip(c, values, strict=True)),
            "unweighted": sum(values),
            "count": sum(np.sign(w * v) for w, v in zip(c, values, strict=True)),
        }[vote]
        sign = np.sign(votes) or zero
        agreeing = [i for i, v in enumerate(values) if c[i] * v * sign > 0]
        total = sum(c[i] * values[i] for i in agreeing)
        divisor = sum(c[i] for i in agreeing) if normalize and agreeing else 1.0
        out[at] += scale * total / divisor
    return out


def consensus(b: A, kept: Sequence[A], c: Numbers, ratio: Numbers, k: int) -> A:
    scaled = [w * t for w, t in zip(c, kept, strict=True)]
    total = sum(scaled)
    needs = [np.abs(x) >= r * np.abs(total - x) for x, r in zip(scaled, ratio, strict=True)]
    return b + np.where(np.sum(needs, axis=0) >= k, total, 0.0)


def emr(b: A, xs: Sequence[A], c: Numbers) -> A:
    scaled = [w * t for w, t in zip(c, taus(b, xs), strict=True)]
    sign = np.where(sum(scaled) > 0, 1.0, -1.0)
    agreeing = [np.where(x * sign > 0, np.abs(x), 0.0) for x in scaled]
    return b + sign * np.max(agreeing, axis=0)


def magmax(b: A, xs: Sequence[A], c: Numbers) -> A:
    out = b.copy()
    for at in np.ndindex(b.shape):
        out[at] += max((w * (x[at] - b[at]) for w, x in zip(c, xs, strict=True)), key=abs)
    return out


def pcb(b: A, xs: Sequence[A], c: Numbers, ratio: float, clip: float) -> A:
    ts = taus(b, xs)
    weights, values = [], []
    for t in ts:
        clipped = between_places(np.abs(t), int(t.size * clip), int(t.size * (1 - clip) - 1))
        unit = (clipped - clipped.min()) / (clipped.max() - clipped.min())
        score = np.exp(len(ts) * unit**2) * np.tanh(t * sum(ts))
        score = between_places(score, int(t.size * (1 - ratio)), t.size - 1)
        weights.append((score - score.min()) / (score.max() - score.min()))
        values.append(np.sign(t) * clipped)
    total = np.maximum(sum(weights), 1e-12)
    return b + sum(w * s * v for w, s, v in zip(c, weights, values, strict=True)) / total


def between_places(x: A, first: int, last: int) -> A:
    """Clip to the numbers at two places of the ascending order."""
    ordered = np.sort(x.reshape(-1))
    return np.clip(x, ordered[first], ordered[last])


def sce(b: A, xs: Sequence[A], topk: float, mode: str) -> A:
    ts = taus(b, xs)
    variance = np.var(ts, axis=0)
    share = topk * np.count_nonzero(variance) / b.size
    selected = largest(variance, share) if topk < 1 else np.ones(b.shape, bool)
    energy = [float((t[selected] ** 2).sum()) for t in ts]
    merged = [np.where(selected, t, 0.0) for t in ts] if mode == "masked" else ts
    c = [e / sum(energy) for e in energy]
    return elected(b, merged, c, vote="unweighted", zero=1)


def varm(b: A, xs: Sequence[A]) -> A:
    energy = [float((t**2).sum()) for t in taus(b, xs)]
    return task_arithmetic(b, xs, [e / sum(energy) for e in energy])


def nearswap(b: A, x: A, limit: float) -> A:
    portion = np.clip(limit / np.maximum(np.abs(b - x), 1e-6), 0.0, 1.0)
    return portion * x + (1.0 - portion) * b


def arcee_fusion(b: A, x: A, fence: float) -> A:
    p, q = (np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for v in (x, b))
    divergence = (p * np.log(p / q)).sum(axis=1, keepdims=True)
    importance = np.abs(x - b) * divergence
    low, median, high = np.quantile(importance, [0.25, 0.5, 0.75], method="lower")
    return np.where(importance >= median + fence * (high - low), x, b)


def ram(b: A, xs: Sequence[A], tolerance: float, boost: float = 0.0, cap: float = 0.0) -> A:
    ts = taus(b, xs)
    active = np.stack([np.abs(t) > tolerance for t in ts])
    count = active.sum(axis=0)
    out = b.copy()
    for t, a in zip(ts, active, strict=True):
        unique, common = (a & (count == 1)).sum(), (a & (count > 1)).sum()
        factor = 1.0 + boost * min(common / unique, cap) if unique else 1.0
        out += np.where(a, t, 0.0) * np.where(count == 1, factor, 1.0 / np.maximum(count, 1))
    return out


def localize_and_stitch(b: A, xs: Sequence[A], share: float) -> A:
    ts = taus(b, xs)
    masks = [largest(t, share) for t in ts]
    total = sum(np.where(m, t, 0.0) for m, t in zip(masks, ts, strict=True))
    return b + total / np.maximum(np.sum(masks, axis=0), 1)


def tatr(b: A, xs: Sequence[A], trust: float) -> A:
    ts = taus(b, xs)
    omega = sum(2 * np.abs(s) * np.abs(t) for s, t in combinations(ts, 2))
    return b + np.where(largest(omega, 1.0 - trust), 0.0, sum(ts))


def widen(b: A, xs: Sequence[A], above: float, calibration: float) -> A:
    columns = b.shape[1]
    norm = np.linalg.norm
    lengths, directions = np.zeros((2, len(xs), columns))
    for i, x in enumerate(xs):
        for j in range(columns):
            u, v = x[:, j], b[:, j]
            lengths[i, j] = abs(norm(u) - norm(v))
            directions[i, j] = 1.0 - u @ v / (norm(u) * norm(v))

    def ranks(changes: A) -> A:
        return np.argsort(np.argsort(changes, axis=1), axis=1) / columns

    both = sum(widen_scores(ranks(each), above, calibration) for each in (lengths, directions)) / 2
    return b + sum(row * t for row, t in zip(both, taus(b, xs), strict=True))


def widen_scores(significance: A, above: float, calibration: float) -> A:
    found = np.exp(significance) / np.exp(significance).sum(axis=0)
    for row, each in zip(found, significance, strict=True):
        row[each > above * each.mean()] = calibration
    return found


def widen_vector(b: A, xs: Sequence[A], above: float, calibration: float) -> A:
    """Norms and biases: a softmax of the changes themselves."""
    scores = widen_scores(np.abs(taus(b, xs)), above, calibration)
    return b + sum(row * t for row, t in zip(scores, taus(b, xs), strict=True))


# --- on the sphere ---


def slerp(u: A, v: A, t: float) -> A:
    cosine = np.vdot(u, v) / (np.linalg.norm(u) * np.linalg.norm(v))
    omega = np.arccos(cosine)
    return (np.sin((1 - t) * omega) * u + np.sin(t * omega) * v) / np.sin(omega)


def multislerp(vs: Sequence[A], c: Numbers) -> A:
    """Through the tangent space at the mean direction, as published."""
    c = [w / sum(c) for w in c]
    units = [v / np.linalg.norm(v) for v in vs]
    mean = sum(w * u for w, u in zip(c, units, strict=True))
    mean /= np.linalg.norm(mean)
    tangent = sum(w * (u - np.vdot(u, mean) * mean) for w, u in zip(c, units, strict=True))
    size = np.linalg.norm(tangent)
    point = mean if size < 1e-12 else np.cos(size) * mean + np.sin(size) * tangent / size
    return point * sum(w * np.linalg.norm(v) for w, v in zip(c, vs, strict=True))


def karcher(xs: Sequence[A], c: Numbers) -> A:
    """Plain gradient descent on the sphere, in the full space."""
    c = [w / sum(c) for w in c]
    units = [x / np.linalg.norm(x) for x in xs]
    u = units[0]
    for _ in range(300):
        step = np.zeros_like(u)
        for w, v in zip(c, units, strict=True):
            angle = np.arccos(np.clip(np.vdot(u, v), -1, 1))
            if angle > 1e-9:
                step += w * angle / np.sin(angle) * (v - np.cos(angle) * u)
        size = np.linalg.norm(step)
        if size < 1e-13:
            break
        u = np.cos(size) * u + np.sin(size) * step / size
    return u * sum(w * np.linalg.norm(x) for w, x in zip(c, xs, strict=True))


def model_stock(b: A, xs: Sequence[A], average: str) -> A:
    ts = taus(b, xs)
    cosines = [
        np.vdot(s, t) / (np.linalg.norm(s) * np.linalg.norm(t)) for s, t in combinations(ts, 2)
    ]
    c = np.cos(np.mean(np.arccos(cosines))) if average == "angle" else np.mean(cosines)
    n = len(xs)
    t = n * c / (1 + (n - 1) * c)
    return t * np.mean(xs, axis=0) + (1 - t) * b


def variance_corrected(xs: Sequence[A], c: Numbers, kappa: float) -> A:
    x = linear(xs, c)
    target = sum(w * np.var(y) for w, y in zip(c, xs, strict=True)) / sum(c)
    stretch = 1 + kappa * (np.sqrt(target / np.var(x)) - 1)
    return (x - x.mean()) * stretch + x.mean()


def doge_lambda(b: A, xs: Sequence[A], c: Numbers, eta: float) -> A:
    return b + sum(w * eta / np.linalg.norm(t) * t for w, t in zip(c, taus(b, xs), strict=True))
