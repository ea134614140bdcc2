"""Masks of a merge: made and written, one expert after another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from evomerge.errors import ConfigError, Fault, RecipeError, did_you_mean
from evomerge.masked.file import MASKS, ExpertMask, MaskFile, masks_text, packed
from evomerge.masked.kinds import MaskKind, needed
from evomerge.merging.output import put
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.expert import TensorSource, content_digest
from evomerge.models.writer import TensorForm, write_safetensors
from evomerge.recipe.recipe import Recipe

__all__ = ["WrittenMasks", "check_masks", "kind_for", "part_faults", "write_masks"]


@dataclass(frozen=True)
class WrittenMasks:
    """What there is to say of the masks of a merge.

    Attributes:
        masks: The masks.
        merge_bytes: Of the merge's tensors.
        mask_bytes: Of one mask.
    """

    masks: MaskFile
    merge_bytes: int
    mask_bytes: int

    @property
    def total_bytes(self) -> int:
        """Of the merge with all masks."""
        return self.merge_bytes + len(self.masks.experts) * self.mask_bytes

    @property
    def experts_bytes(self) -> int:
        """Of all experts as models of their own."""
        return len(self.masks.experts) * self.merge_bytes


def kind_for(recipe: Recipe) -> MaskKind:
    """Tell which masks go with a recipe: EMR's with its merge, else TALL's."""
    return "emr" if {rule.method for rule in recipe.rules} == {"emr"} else "tall"


def check_masks(recipe: Recipe, sources: Sources, ratios: Mapping[str, float]) -> None:
    """Make sure that masks can be made, before anything is merged.

    Raises:
        RecipeError: It is an ensemble; or the merge has no base, a path, or a part that is not
            the expert's own, everything that is wrong.
        ConfigError: A ratio is of no expert, or is no ratio.
    """
    recipe.require_merge()
    if faults := list(_recipe_faults(recipe, sources)):
        raise RecipeError(*faults)
    if faults := list(_ratio_faults(recipe, ratios)):
        raise ConfigError(*faults)


def _recipe_faults(recipe: Recipe, sources: Sources) -> Iterator[Fault]:
    if recipe.base is None:
        yield Fault(("base",), "expected a base, from which changes are counted, got none")
    yield from part_faults(recipe, sources)


def part_faults(recipe: Recipe, sources: Sources) -> Iterator[Fault]:
    """Find why no expert could be made again of a merge and what is kept of each of its tensors."""
    if recipe.path:
        text = "expected the base's layers, got a path; what is kept is of single tensors"
        yield Fault(("path",), text)
    if sources.vocabulary is not None:
        text = "expected models of one vocabulary, got models that are brought to one"
        yield Fault(("tokenizer",), text, "restoring an expert would need them all")
    for name, expert in sources.experts.items():
        if other := _other_part(sources, expert):
            text = f"expected {other} to be the merge's, which is lent it, got one of its own"
            yield Fault(("experts", name), text, "leave out models without that part, and parts")


def _other_part(sources: Sources, expert: TensorSource) -> str | None:
    """Name a tensor that an expert has otherwise than the merge, to which a model lends it."""
    for name in filter(expert.layout.__contains__, sources.lent_names):
        own, lent = expert.tensor(name), sources.lent_tensor(name)
        if own.shape != lent.shape or not torch.equal(own, lent):
            return name
    return None


def _ratio_faults(recipe: Recipe, ratios: Mapping[str, float]) -> Iterator[Fault]:
    for name, ratio in ratios.items():
        if name not in recipe.experts:
            hint = did_you_mean(name, recipe.experts)
            yield Fault(("mask_ratio", name), f"expected the name of an expert, got {name!r}{hint}")
        if not 0 <= ratio < math.inf:
            yield Fault(("mask_ratio", name), f"expected a number of at least 0, got {ratio}")


def write_masks(
    recipe: Recipe,
    folder: Path,
    *,
    by: MaskKind,
    ratios: Mapping[str, float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> WrittenMasks:
    """Write one mask per expert beside a merge. Memory: one tensor of each model.

    Args:
        recipe: What was merged, checked (``check_masks``).
        folder: Holds the merge, as ``write_checkpoint`` writes it.
        by: Kind of the masks.
        ratios: Of ``tall``, of every expert.
        progress: Called with (tensors done, tensors in all), over all experts.

    Raises:
        EvomergeError: A model cannot be opened, or a file cannot be written.
    """
    sources, merge = Sources.of(recipe), Checkpoint(folder)
    makers = {name: _Maker(sources, merge, name, by, ratios[name]) for name in recipe.experts}
    total, found = len(makers) * len(sources.names), {}
    for i, (name, maker) in enumerate(makers.items()):
        file = f"masks/{i:03d}.safetensors"  # apart: some programs load all there is beside a model
        (folder / file).parent.mkdir(exist_ok=True)
        write_safetensors(folder / file, maker.forms, maker.bits)
        found[name] = ExpertMask(file, maker.density, maker.rescale)
        progress((i + 1) * len(sources.names), total)
    assert recipe.base is not None, "it was checked"
    assert sources.base is not None, "likewise"
    digests = content_digest(sources.base), content_digest(merge)
    masks = MaskFile(by, recipe.base, *digests, found)
    put(folder / MASKS, masks_text(masks, folder).encode())
    sizes = {name: TensorForm(merge.dtype(name), merge.shape(name)).nbytes for name in merge.names}
    mask_bytes = sum(form.nbytes for form in makers[next(iter(makers))].forms.values())
    return WrittenMasks(masks, sum(sizes.values()), mask_bytes)


class _Maker:
    """Makes the mask of one expert, tensor by tensor, and adds up what it needs."""

    def __init__(
        self, sources: Sources, merge: Checkpoint, expert: str, by: MaskKind, ratio: float
    ) -> None:
        self._sources, self._merge, self._expert = sources, merge, expert
        self._by: MaskKind = by
        self._ratio = ratio
        self._own = self._kept = 0.0
        self._n_kept = self._n = 0

    @property
    def forms(self) -> dict[str, TensorForm]:
        sizes = {name: math.prod(self._merge.shape(name)) for name in self._sources.names}
        return {name: TensorForm(torch.uint8, (-(-n // 8),)) for name, n in sizes.items()}

    def bits(self, name: str) -> torch.Tensor:
        assert self._sources.base is not None, "it was checked"
        base, merge = self._sources.base.tensor(name), self._merge.tensor(name)
        own = self._sources.tensor(self._expert, name)
        found = needed(self._by, base, own, merge, self._ratio)
        self._own, self._kept = self._own + found.own, self._kept + found.kept
        self._n_kept, self._n = self._n_kept + int(found.mask.sum()), self._n + found.mask.numel()
        return packed(found.mask)

    @property
    def density(self) -> float:
        return self._n_kept / self._n

    @property
    def rescale(self) -> float:
        """Of EMR, so that changes are as large on average as the expert's; 1 where none is kept."""
        return self._own / self._kept if self._by == "emr" and self._kept else 1.0
