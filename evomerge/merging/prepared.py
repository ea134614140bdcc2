"""Prepared task vectors (``methods.prepared``): computed once, then mapped by every process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import torch
import xxhash

from evomerge.cache import cache_folder, hold_room, say_unusable
from evomerge.errors import CheckpointError
from evomerge.merging.shared import SharedExpert, mapped, only_one
from evomerge.methods.prepared import FactorPair, Preparation, TaskVectors
from evomerge.models.adapter import Adapter
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.expert import TensorSource
from evomerge.models.merged_vocabulary import OnMergedVocabulary
from evomerge.models.tiles import row_blocks
from evomerge.models.writer import TensorForm
from evomerge.statistics.content import Origin

if TYPE_CHECKING:
    from evomerge.merging.observed import Observations

__all__ = ["PREPARED", "PreparedTensors", "prepared_bytes"]

PREPARED = "prepared"
"""Room of the user's cache where they are kept."""
_ARITHMETIC = 1  # raise when a preparation of the same tensors gets other values


class PreparedTensors:
    """Prepares tensors of a set of models when first asked for.

    They are found again by what the tensors of base and experts hold, on disk, by any process; one
    process at a time computes the same tensor. Disk: 4 bytes per parameter and expert. Memory: a
    few times one tensor in float32 for each expert, while it is prepared; where nothing can be kept
    on disk, all that is prepared.

    Args:
        base: What is subtracted.
        experts: In recipe order.
        digests: Tells what the tensors of a name hold, of base and experts in this order.
        folder: Where they are kept; ``None``: in memory.
        observations: Returns what the experts compute on prompts, for methods with data.
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Sequence[TensorSource],
        digests: Callable[[str], Sequence[str]],
        folder: Path | None,
        observations: Callable[[], Observations] | None = None,
    ) -> None:
        self._base, self._experts, self._digests = base, experts, digests
        self._folder, self._observations = folder, observations
        self._hold: BinaryIO | None = None  # while tensors are mapped
        self._known: dict[
            str, dict[str, tuple[torch.Tensor, ...]]
        ] = {}  # by tensor and preparation

    @classmethod
    def default(
        cls,
        base: Checkpoint,
        experts: Sequence[TensorSource],
        digests: Callable[[str], Sequence[str]],
        observations: Callable[[], Observations] | None = None,
    ) -> PreparedTensors:
        """Keep them in the user's cache (``evomerge.cache``)."""
        return cls(base, experts, digests, cache_folder(PREPARED), observations)

    def vectors(self, name: str, prepared: str) -> tuple[torch.Tensor, ...]:
        """Return the prepared task vectors of one tensor.

        Args:
            name: Of the tensor.
            prepared: ``TensorPlan.prepared``.

        Returns:
            One per expert, float32, of the tensor's shape; never write into them.
        """
        known = self._known.setdefault(name, {})
        if prepared not in known:
            known[prepared] = self._found(name, prepared)
        return known[prepared]

    def vector(self, name: str, prepared: str, expert: int) -> torch.Tensor:
        """Return the prepared task vector of one tensor and expert; see ``vectors``."""
        return self.vectors(name, prepared)[expert]

    def origins(self, name: str, prepared: str) -> list[Origin] | None:
        """Tell where task vectors come from, once they are prepared; ``None``: from memory."""
        if self._folder is None:
            return None
        file = self._file(name, prepared)
        return [Origin((file,), str(i)) for i in range(len(self._experts))]

    def forget(self, name: str) -> None:
        """Drop a tensor from memory."""
        self._known.pop(name, None)

    def _found(self, name: str, prepared: str) -> tuple[torch.Tensor, ...]:
        preparation = _parsed(prepared)
        made = cache(lambda: preparation.run(self._with_observations(name, preparation)))
        if self._folder is not None:
            try:
                return self._mapped(name, self._file(name, prepared), made)
            except (OSError, CheckpointError) as err:
                say_unusable(self._folder, err)
        return tuple(made())

    def _mapped(
        self, name: str, file: Path, made: Callable[[], Sequence[torch.Tensor]]
    ) -> tuple[torch.Tensor, ...]:
        keys = [str(i) for i in range(len(self._experts))]
        forms = dict.fromkeys(keys, TensorForm(torch.float32, self._base.shape(name)))
        if self._hold is None:
            assert self._folder is not None, "the file is in it"
            self._hold = hold_room(self._folder)
        with only_one(file) as note:
            found = mapped(file, note, forms, lambda key: made()[int(key)])
        return tuple(map(found.get_tensor, keys))

    def _file(self, name: str, prepared: str) -> Path:
        parts = [str(_ARITHMETIC), prepared, *self._digests(name)]
        kinds = _parsed(prepared).observations
        parts += [self._observed().digest(kind) for kind in kinds]
        digest = xxhash.xxh3_128_hexdigest("\0".join(parts).encode())
        return Path(self._folder or "", digest[:2], f"{digest}.safetensors")

    def _with_observations(self, name: str, preparation: Preparation) -> TaskVectors:
        vectors = self._task_vectors(name)
        observed = {
            kind: self._observed().readers(kind, name, preparation, self._task_vectors)
            for kind in preparation.observations
        }
        return replace(vectors, observed=observed)

    def _observed(self) -> Observations:
        assert self._observations is not None, "recipes of methods with data name prompts"
        return self._observations()

    def _task_vectors(self, name: str) -> TaskVectors:
        factors = [partial(_factors, expert, self._base, name) for expert in self._experts]
        read = [
            partial(_task_vector, expert, self._base, name, own)
            for expert, own in zip(self._experts, factors, strict=True)
        ]
        return TaskVectors(self._base.shape(name), read, factors)


def _parsed(prepared: str) -> Preparation:
    preparation = Preparation.parse(prepared)
    assert preparation is not None, "what a plan names"
    return preparation


def prepared_bytes(shapes: Mapping[str, Sequence[int]], n_experts: int) -> tuple[int, int]:
    """Tell what one preparation of tensors takes.

    Args:
        shapes: Of the tensors, by name.
        n_experts: How many experts there are.

    Returns:
        Bytes on disk, and about the most bytes of memory while a tensor is prepared.
    """
    sizes = [4 * n_experts * torch.Size(shape).numel() for shape in shapes.values()]
    return sum(sizes), max(sizes, default=0)


def _task_vector(
    expert: TensorSource, base: Checkpoint, name: str, factors: Callable[[], FactorPair | None]
) -> torch.Tensor:
    """Read one in float32; of an adapter on the base, without rounding to a sum with the base."""
    if (found := factors()) is not None:
        return found[0] @ found[1]
    theirs, ours = expert.tensor(name), base.tensor(name)
    out = torch.empty(ours.shape)
    for rows in row_blocks(out.shape):
        out[rows] = theirs[rows].float() - ours[rows].float()
    return out


def _factors(expert: TensorSource, base: Checkpoint, name: str) -> FactorPair | None:
    """Read the factors of an adapter's task vector, if it is one on this very base."""
    source = expert.computed_from if isinstance(expert, SharedExpert) else expert
    if isinstance(source, OnMergedVocabulary) and not source.is_mapped(name):
        source = source.source
    if not isinstance(source, Adapter) or name not in source.low_rank or name in source.whole:
        return None
    if source.layout.folder.resolve() != base.folder.resolve():
        return None
    right, left = source.factors(name)
    return left.float(), right.float()
