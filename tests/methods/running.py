"""What the tests of methods share: tensors whose arithmetic is exact, and a way to run a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from evomerge.kernels.masks import hash24, keep_threshold
from evomerge.kernels.plan import TensorPlan
from evomerge.kernels.reference import merge_reference
from evomerge.methods.base import Method, ParameterValue, TensorContext
from evomerge.methods.modifiers import bind_modifiers
from evomerge.methods.prepared import Preparation, TaskVectors
from evomerge.methods.registry import method
from evomerge.methods.slopes import Lowering
from evomerge.statistics.tensor import TensorStatistics

FloatArray = NDArray[np.float64]
Modifiers = Mapping[str, Mapping[str, ParameterValue]]

ROWS, COLUMNS = 8, 64
SEED = 3


def exact_tensors(seed: int, k: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Draw a base and experts such that thresholds by histogram equal thresholds by sorting.

    Within an expert all changes differ in magnitude, all are exact in bfloat16 (so each has a
    histogram bucket of its own), and expert minus base is exact in float32.
    """
    random = np.random.default_rng(seed)
    n = ROWS * COLUMNS
    magnitudes = np.concatenate([np.arange(128, 256) * 2.0**e for e in range(5)]) / 4096
    base = random.integers(-4096, 4096, n) / 4096
    experts = [
        base + random.permutation(magnitudes)[:n] * random.choice([-1, 1], n) for _ in range(k)
    ]
    return tensor(base), [tensor(expert) for expert in experts]


def tensor(values: FloatArray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(ROWS, COLUMNS)


def names(k: int) -> tuple[str, ...]:
    return tuple(f"e{i}" for i in range(k))


def bound(name: str, k: int, **values: ParameterValue) -> Method:
    """Bind a method to ``k`` experts; per-expert parameters may be sequences."""
    given = {key.rstrip("_"): _by_name(value, k) for key, value in values.items()}
    return method(name).bind(given, names(k))


def _by_name(value: ParameterValue | Sequence[float], k: int) -> ParameterValue:
    return dict(zip(names(k), value, strict=True)) if isinstance(value, tuple) else value


def task_vectors(base: torch.Tensor | None, experts: Sequence[torch.Tensor]) -> TaskVectors:
    """The task vectors of whole tensors, as a preparation reads them."""
    read = [lambda e=e: (e - base if base is not None else e).float() for e in experts]
    return TaskVectors(tuple(experts[0].shape), read, [lambda: None] * len(experts))


def added(
    method: Method, base: torch.Tensor | None, experts: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    """The tensors that a method's plans add up: the experts, or what it prepares of them."""
    if method.prepared is None:
        return experts
    return Preparation.parse(method.prepared).run(task_vectors(base, experts))


def context(
    base: torch.Tensor | None, experts: Sequence[torch.Tensor], **fields: int | None
) -> TensorContext:
    return dataclasses.replace(
        TensorContext("t", names(len(experts)), TensorStatistics(base, experts), SEED), **fields
    )


def merge(
    name: str,
    base: torch.Tensor | None,
    experts: Sequence[torch.Tensor],
    modifiers: Modifiers | None = None,
    *,
    run: Callable[
        [TensorPlan, torch.Tensor | None, Sequence[torch.Tensor]], torch.Tensor
    ] = merge_reference,
    **values: ParameterValue,
) -> FloatArray:
    """Lower and run a method; float64, in the shape of the tensors."""
    method = bound(name, len(experts), **values)
    sources = added(method, base, experts)
    where = context(base if method.prepared is None else None, sources)
    changes = bind_modifiers(modifiers or {}, where.experts)
    return run(Lowering(method, changes).plan(where), base, sources).double().numpy()


def is_kept(expert: int, keep: FloatArray | float) -> NDArray[np.bool_]:
    """Tell what the random mask of one expert keeps; ``keep`` may differ by element."""
    where = TensorContext("t", names(expert + 1), TensorStatistics(None, []), SEED)
    hashes = hash24(where.mask_key(expert), np.arange(ROWS * COLUMNS, dtype=np.uint64))
    probabilities = np.broadcast_to(keep, (ROWS, COLUMNS)).reshape(-1)
    kept = hashes < np.array([keep_threshold(float(p)) for p in probabilities])
    return kept.reshape(ROWS, COLUMNS)
