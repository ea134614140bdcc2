"""One recipe as a live transformers model, or as a folder that holds one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, overload

from evomerge.cache import cache_folder
from evomerge.recipe.files import load_recipe, read_recipe, stored_recipe
from evomerge.recipe.recipe import Recipe
from evomerge.study.records import TrialRecord

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge.merging.finite import NonFinite

__all__ = ["RecipeSource", "export_merge", "merge", "recipe_of", "write_merge"]

RecipeSource = str | PathLike[str] | Mapping[str, Any] | Recipe | TrialRecord
"""A YAML file, ours or mergekit's; its keys as plain data; a recipe; a trial that has one."""

_Progress = Callable[[int, int], None]


@overload
def merge(recipe: RecipeSource, out: None = None) -> PreTrainedModel: ...
@overload
def merge(
    recipe: RecipeSource, out: str | PathLike[str], *, allow_non_finite: bool = False
) -> Path: ...


def merge(
    recipe: RecipeSource,
    out: str | PathLike[str] | None = None,
    *,
    allow_non_finite: bool = False,
) -> PreTrainedModel | Path:
    """Materialise one recipe.

    Args:
        recipe: A file, its keys, a recipe, or a trial; relative model folders in keys start at the
            current folder.
        out: Folder to write, as plain transformers loads it; absent: nothing is written.
        allow_non_finite: Write a merge although it holds NaN or infinity.

    Returns:
        The model, in evaluation mode on the CPU, whose tokenizer is the base's; or ``out``.

    Raises:
        EvomergeError: The recipe is wrong, its models are missing or do not fit, or the folder
            cannot be written.
    """
    found = recipe_of(recipe)
    if out is None:
        return _live(found)
    export_merge(found, Path(out), allow_non_finite=allow_non_finite)
    return Path(out)


def recipe_of(source: RecipeSource) -> Recipe:
    """Read a recipe, whatever it comes as.

    Raises:
        ConfigError: It is none; every fault.
        RecipeError: A mergekit recipe that means something ours cannot say.
    """
    if isinstance(source, Recipe):
        return source
    if isinstance(source, TrialRecord):
        return stored_recipe(source.recipe, source.number)
    if isinstance(source, Mapping):
        return read_recipe(source, Path.cwd())
    return load_recipe(Path(source))


def export_merge(
    recipe: Recipe,
    out: Path,
    *,
    allow_non_finite: bool = False,
    measuring: _Progress = lambda done, total: None,
    merging: _Progress = lambda done, total: None,
) -> NonFinite:
    """Write a recipe as a folder with a model card; see ``write_merge``."""
    from evomerge.export.restorable import write_merge_card

    found = write_merge(
        recipe, out, allow_non_finite=allow_non_finite, measuring=measuring, merging=merging
    )
    write_merge_card(recipe, out, non_finite=found)
    return found


def write_merge(
    recipe: Recipe,
    out: Path,
    *,
    allow_non_finite: bool = False,
    measuring: _Progress = lambda done, total: None,
    merging: _Progress = lambda done, total: None,
) -> NonFinite:
    """Write a recipe as a folder without a card, after measuring what its methods need.

    Args:
        recipe: What to merge.
        out: Folder to write.
        allow_non_finite: See ``write_checkpoint``.
        measuring: Called with (elements done, elements in all).
        merging: Called with (tensors done, tensors in all).

    Returns:
        What is not finite in the folder.

    Raises:
        EvomergeError: See ``write_checkpoint``.
    """
    from evomerge.merging.folder import write_checkpoint
    from evomerge.merging.measuring import measure_models
    from evomerge.merging.sources import Sources

    if cache_folder("statistics") is not None:
        measure_models(Sources.of(recipe), recipe.statistics, measuring)
    return write_checkpoint(recipe, out, progress=merging, allow_non_finite=allow_non_finite)


def _live(recipe: Recipe) -> PreTrainedModel:
    """Merge into a live model; the layers of a path must be written out to be an ordinary one."""
    from evomerge.merging.candidate import LiveCandidate, load_model
    from evomerge.merging.sources import Sources

    sources = Sources.of(recipe, cache_folder("experts"))
    if recipe.path:
        with TemporaryDirectory(prefix="evomerge-") as folder:
            write_merge(recipe, Path(folder))
            model = load_model(folder, "auto")
        model.name_or_path = str(sources.anchor.companions)  # where its tokenizer is
        return model
    sources.check_finite()
    candidate = LiveCandidate(sources, recipe.dtype)
    candidate.materialise(recipe)
    return candidate.model
