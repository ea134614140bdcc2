"""What a mergekit file says besides its settings: models, dtype, filters."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import chain, count
from typing import cast, get_args

from evomerge.errors import RecipeError
from evomerge.recipe.mergekit.file import MergekitFile
from evomerge.recipe.recipe import Dtype

__all__ = ["all_filters", "expert_names", "recipe_dtype"]


def expert_names(models: Iterable[str], reserved: Collection[str] = ()) -> dict[str, str]:
    """Name models, each after the last component of its path.

    Args:
        models: mergekit's model names.
        reserved: Names that none may have.
    """
    names: dict[str, str] = {}
    for model in models:
        stem = re.split(r"[/:]", model.partition("@")[0].rstrip("/"))[-1]
        candidates = chain([stem], (f"{stem}-{n}" for n in count(2)))
        taken = {*names.values(), *reserved}
        names[model] = next(name for name in candidates if name not in taken)
    return names


def recipe_dtype(file: MergekitFile) -> Dtype | None:
    """Read the dtype of the result.

    Raises:
        RecipeError: It is none that recipes have.
    """
    name = file.out_dtype or file.dtype
    if name is None:
        return None
    name = name.removeprefix("torch.")
    if name not in get_args(Dtype):
        raise RecipeError(f"expected a dtype out of {', '.join(get_args(Dtype))}, got {name!r}")
    return cast(Dtype, name)


def all_filters(file: MergekitFile) -> list[str]:
    """List the substrings of tensor names that any setting asks for, each once."""
    scopes = [file.parameters]
    for piece in file.slices:
        scopes += [piece.parameters, *(source.parameters for source in piece.sources)]
    cases = [case for settings in scopes for cases in settings.values() for case in cases]
    return list(dict.fromkeys(case.filter for case in cases if case.filter not in (None, "*")))
