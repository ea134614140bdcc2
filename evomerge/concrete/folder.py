"""The experts under a learned mask, as folders, and the mask beside them, kept by content."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from pydantic import ConfigDict

from evomerge.concrete.settings import MaskSettings
from evomerge.errors import CheckpointError, ConfigError, Fault
from evomerge.fingerprint import digest_of, fingerprint
from evomerge.merging.folder import SHARD_BYTES
from evomerge.merging.output import (
    WRITTEN,
    ModelFolder,
    claim_folder,
    put,
    remove_merge,
    write_model,
)
from evomerge.merging.sources import Sources
from evomerge.models.checkpoint import open_safetensors
from evomerge.models.reference import ModelRef
from evomerge.models.writer import TensorForm, write_safetensors
from evomerge.recipe.files import RECIPE_FILE, dump_recipe
from evomerge.recipe.path import BASE
from evomerge.recipe.recipe import Recipe
from evomerge.recipe.rules import sum_rule
from evomerge.schema import parse, read_yaml, write_yaml

__all__ = ["LearnedMask", "kept_mask", "mask_faults", "write_mask", "write_masked"]

_FILE, _TENSORS = "mask.yaml", "mask.safetensors"
_HEADER = f"{WRITTEN}\nevomerge learn-mask EXPERIMENT --out DIR"  # of an expert's recipe


@dataclass(frozen=True)
class LearnedMask:
    """What is kept of learning a mask.

    Attributes:
        digest: Of all that it depends on: models, items, settings.
        tensors_digest: What the file of the mask holds.
        losses: Of the merge in each step.
    """

    digest: str
    tensors_digest: str
    losses: tuple[float, ...]

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def ends(self) -> tuple[float, float]:
        """The mean loss in the first tenth of the steps, and in the last."""
        n = max(1, len(self.losses) // 10)
        return fmean(self.losses[:n]), fmean(self.losses[-n:])


def mask_faults(sources: Sources, out: Path) -> Iterator[Fault]:
    """Find why experts cannot be put under a mask, or not be written into a folder."""
    if out.exists() and not _is_ours(out):
        text = f"expected an empty folder, or one with {_FILE} of an earlier mask, got {out}"
        yield Fault(("out",), text, "choose another folder")
    if sources.vocabulary is not None:
        text = "expected models of one vocabulary, got models that are brought to one"
        yield Fault(("models", "tokenizer"), text, "merge them to that vocabulary first")


def _is_ours(out: Path) -> bool:
    """Tell whether a folder holds an earlier mask, one that was not finished, or nothing."""
    if not out.is_dir():
        return False
    names = {file.name for file in out.iterdir()}
    return _FILE in names or names <= {_TENSORS, f".{_TENSORS}.partial"}


def kept_mask(out: Path, digest: str) -> LearnedMask | None:
    """Read what was learned before of the very same; ``None``: there is nothing, or another."""
    try:
        found = parse(LearnedMask, read_yaml(out / _FILE))
        is_whole = fingerprint(out / _TENSORS) == found.tensors_digest
    except (ConfigError, OSError):
        return None
    return found if is_whole and found.digest == digest else None


def write_mask(
    out: Path,
    digest: str,
    losses: tuple[float, ...],
    shapes: Mapping[str, tuple[int, ...]],
    mask_of: Callable[[str], torch.Tensor],
) -> LearnedMask:
    """Keep a mask: a factor in float32 for each element of every tensor.

    Args:
        out: Folder; created if needed.
        digest: Of all that it depends on.
        losses: Of the steps.
        shapes: Of the masked tensors, by name.
        mask_of: Returns the mask of one, rescaled.

    Raises:
        CheckpointError: A file cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise CheckpointError(f"cannot write into {out}: {err.strerror}") from err
    forms = {name: TensorForm(torch.float32, shape) for name, shape in shapes.items()}
    write_safetensors(out / _TENSORS, forms, mask_of)
    found = LearnedMask(digest, fingerprint(out / _TENSORS), losses)
    put(out / _FILE, write_yaml(asdict(found), "A learned mask: evomerge learn-mask").encode())
    return found


def write_masked(
    out: Path,
    sources: Sources,
    base: str,
    settings: MaskSettings,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write every expert as base + mask · task vector, and the recipe of their merge.

    Each is a folder ``NAME`` that plain transformers loads, in the dtype of the base: an expert for
    any recipe or search. ``recipe.yaml`` merges them as while learning. Memory: one tensor of each.

    Args:
        out: Holds the mask.
        sources: Base and experts.
        base: What the base was opened from.
        settings: What the mask was learned with.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (experts done, experts in all).

    Raises:
        NonFiniteError: An expert holds NaN or infinity.
        CheckpointError: A folder cannot be written.
    """
    masks, digest = open_safetensors(out / _TENSORS), fingerprint(out / _TENSORS)
    for i, name in enumerate(sources.experts, 1):
        files = [*sources.files, out / _TENSORS]
        claim_folder(out / name, digest_of("under a mask", digest, name), files, shard_bytes)
        write_model(out / name, _model(sources, name, masks), shard_bytes)
        progress(i, len(sources.experts))
    _remove_others(out, sources.experts)
    experts: dict[str, ModelRef] = {name: str((out / name).resolve()) for name in sources.experts}
    rule = sum_rule(dict.fromkeys(sources.experts, settings.coefficient))
    recipe = Recipe(experts, (rule,), base=base)
    put(
        out / RECIPE_FILE,
        dump_recipe(recipe, "evomerge merge THIS --out DIR", beside=out).encode(),
    )


def _remove_others(out: Path, names: Collection[str]) -> None:
    """Remove experts under an earlier mask, which the recipe beside them does not name."""
    for recipe in out.glob(f"*/{RECIPE_FILE}"):
        lines = recipe.read_text("utf-8", errors="replace").splitlines()
        is_expert = [line.removeprefix("# ") for line in lines[:2]] == _HEADER.splitlines()
        if is_expert and recipe.parent.name not in names:
            remove_merge(recipe.parent)


def _model(sources: Sources, expert: str, masks: Any) -> ModelFolder:
    anchor, masked = sources.anchor, frozenset(masks.keys())

    def tensor(name: str) -> torch.Tensor:
        if name not in masked:
            is_own = name in sources.names
            return sources.tensor(expert, name) if is_own else sources.lent_tensor(name)
        base, own = sources.tensor(BASE, name).float(), sources.tensor(expert, name).float()
        mask: torch.Tensor = masks.get_tensor(name)
        return base + mask * (own - base)

    forms = {n: TensorForm(anchor.dtype(n), anchor.shape(n)) for n in sources.stored}
    untied = {"tie_word_embeddings": False} if sources.is_untied else {}
    return ModelFolder(
        forms,
        lambda name: tensor(name).to(forms[name].dtype),
        anchor.companions,
        {**anchor.config, **untied},
        write_yaml({"expert": expert}, _HEADER),
        "look at the models, or choose a base in bfloat16 or float32",
    )
