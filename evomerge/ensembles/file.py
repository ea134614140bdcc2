"""Which models answer together, and how what they say becomes one answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from evomerge.errors import ConfigError, Fault
from evomerge.models.reference import absolute_reference
from evomerge.plain_yaml import placed_in
from evomerge.schema import parse, read_yaml

__all__ = ["EnsembleFile", "load_ensemble", "read_ensemble"]

_N_PROXY = 3


@dataclass(frozen=True)
class EnsembleFile:
    """What stands under ``ensemble``.

    Attributes:
        models: ``zoo:NAME``, folders or Hub ids, all with the tokens of the first.
        by: How next-token predictions become one: the weighted mean of ``probabilities`` or of
            ``logits``; ``proxy``, the logits of the first (large) model plus alpha times those of
            the second (a small one, tuned) minus those of the third (the same, untuned); or
            ``vote``: every model answers alone, and the answer that most give is taken.
        weights: One per model; their sum is made 1. At least 0, but for ``logits``. Absent: equal.
        alpha: Of ``proxy``.
    """

    models: tuple[str, ...]
    by: Literal["probabilities", "logits", "proxy", "vote"] = "probabilities"
    weights: tuple[float, ...] | None = None
    alpha: float | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def shares(self) -> tuple[float, ...]:
        """What the predictions of each model are multiplied by."""
        if self.by == "proxy":
            alpha = 1.0 if self.alpha is None else self.alpha
            return (1.0, alpha, -alpha)
        weights = self.weights or (1.0,) * len(self.models)
        return tuple(weight / sum(weights) for weight in weights)

    def faults(self) -> Iterator[Fault]:
        """Find what is wrong beyond single values."""
        n = len(self.models)
        if self.by == "proxy" and n != _N_PROXY:
            text = "expected a large model, a small tuned one and the same untuned for by: proxy"
            yield Fault(("models",), f"{text}, got {n} models")
        elif n < 2:
            yield Fault(("models",), f"expected at least two models, got {n}")
        if self.by == "proxy" and self.weights is not None:
            yield Fault(("weights",), "by: proxy has alpha instead; remove weights")
        if self.by != "proxy" and self.alpha is not None:
            yield Fault(("alpha",), f"by: {self.by} has weights instead; remove alpha")
        if self.alpha is not None and not math.isfinite(self.alpha):
            yield Fault(("alpha",), f"expected a finite number, got {self.alpha}")
        weights = self.weights or (1.0,) * n
        if len(weights) != n:
            yield Fault(("weights",), f"expected one weight for each of {n} models, got {weights}")
        is_negative = self.by != "logits" and min(weights, default=0) < 0
        if is_negative or not 0 < sum(weights) < float("inf"):
            least = "a sum above 0" if self.by == "logits" else "weights of at least 0, not all 0"
            yield Fault(("weights",), f"expected {least}, got {weights}")


@dataclass(frozen=True)
class _Top:
    """The whole file."""

    ensemble: EnsembleFile

    __pydantic_config__ = ConfigDict(extra="forbid")


def load_ensemble(path: Path) -> EnsembleFile:
    """Read a file with the key ``ensemble``.

    Args:
        path: YAML file; relative model folders start at its folder.

    Raises:
        ConfigError: Every fault, with its line.
    """
    content = read_yaml(path)
    with placed_in(path):
        return read_ensemble(content, path.parent)


def read_ensemble(content: Mapping[str, Any], beside: Path) -> EnsembleFile:
    """Read the keys of such a file; relative model folders start at ``beside``.

    Raises:
        ConfigError: Every fault.
    """
    file = parse(_Top, content).ensemble
    if faults := [fault.under("ensemble") for fault in file.faults()]:
        raise ConfigError(*faults)
    return replace(file, models=tuple(absolute_reference(m, beside) for m in file.models))
