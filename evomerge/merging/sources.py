"""The models a recipe draws from, opened and checked against one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from evomerge.errors import CheckpointError
from evomerge.models.architecture import Architecture
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.reference import resolve_model
from evomerge.statistics.tensor import TensorStatistics

__all__ = ["Sources"]


class Sources:
    """Base and experts, memory-mapped, with their statistics.

    Opening reads headers only. Statistics are computed per tensor on first use and kept.

    Args:
        base: Model reference, or ``None`` for recipes without a base.
        experts: Model reference by name, in recipe order.

    Raises:
        CheckpointError: Listing every model that is missing or does not fit the anchor.
    """

    def __init__(self, base: str | None, experts: Mapping[str, str]) -> None:
        self.base = None if base is None else Checkpoint(resolve_model(base))
        self.experts = {name: Checkpoint(resolve_model(ref)) for name, ref in experts.items()}
        self.anchor = self.base or next(iter(self.experts.values()))
        self.architecture = Architecture(self.anchor.config, self.anchor.names)
        self._statistics: dict[str, TensorStatistics] = {}
        faults = [fault for name in self.experts for fault in self._misfits(name)]
        if faults:
            raise CheckpointError("\n".join(faults))

    def tensors(self, name: str) -> tuple[torch.Tensor | None, tuple[torch.Tensor, ...]]:
        """Map one tensor of the base (if any) and of every expert."""
        base = None if self.base is None else self.base.tensor(name)
        return base, tuple(expert.tensor(name) for expert in self.experts.values())

    def statistics(self, name: str) -> TensorStatistics:
        """Return the statistics of one tensor."""
        if name not in self._statistics:
            self._statistics[name] = TensorStatistics(*self.tensors(name))
        return self._statistics[name]

    def check_finite(self) -> None:
        """Read every tensor once and refuse NaN and infinity.

        Raises:
            CheckpointError: Naming each bad tensor and its file.
        """
        faults = list(self._non_finite())
        if faults:
            raise CheckpointError("\n".join(faults))

    def _non_finite(self) -> Iterator[str]:
        checkpoints = [*([self.base] if self.base else []), *self.experts.values()]
        for checkpoint in checkpoints:
            for name in self.anchor.names:
                tensor = checkpoint.tensor(name)
                # A sum is finite only if all terms are, and needs no mask of the tensor's size.
                if not torch.isfinite(tensor.sum(dtype=torch.float64)):
                    bad = int((~torch.isfinite(tensor)).sum())
                    yield (
                        f"expected finite numbers, got {bad} NaN or infinite out of "
                        f"{tensor.numel()} in tensor {name} of {checkpoint.file_of(name)}"
                    )

    def _misfits(self, name: str) -> Iterator[str]:
        expert, anchor = self.experts[name], self.anchor
        folder = expert.folder
        missing = [n for n in anchor.names if n not in expert]
        extra = [n for n in expert.names if n not in anchor]
        if missing:
            yield f"expert {name!r} ({folder}) lacks {len(missing)} tensors, e.g. {missing[0]}"
        if extra:
            yield f"expert {name!r} ({folder}) has {len(extra)} tensors more, e.g. {extra[0]}"
        for tensor in anchor.names:
            if tensor in expert and expert.shape(tensor) != anchor.shape(tensor):
                yield (
                    f"expert {name!r}: expected {tensor} of shape {anchor.shape(tensor)} as in "
                    f"{anchor.folder}, got {expert.shape(tensor)} in {folder}; models must share "
                    "their architecture and vocabulary"
                )
                return
