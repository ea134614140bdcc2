"""A model with the vocabulary of another one, as a folder."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from evomerge.transplants.folder import Transplanted
    from evomerge.transplants.tables import ApproximationMethod

__all__ = ["transplant"]

_Progress = Callable[[int, int], None]


def transplant(
    donor: str,
    model: str,
    out: str | PathLike[str],
    *,
    approximation_method: ApproximationMethod = "omp",
    k: int = 64,
    chat_template: Literal["donor", "model"] = "donor",
    device: str = "cpu",
    approximating: _Progress = lambda done, total: None,
    writing: _Progress = lambda done, total: None,
) -> Transplanted:
    """Give a model the vocabulary of another one, without training.

    Args:
        donor: The model whose tokens are taken: ``zoo:NAME``, a folder, or a Hub id.
        model: The model that gets them, likewise.
        out: Folder to write, as plain transformers loads it.
        approximation_method: See ``Transplant``.
        k: Of how many shared tokens a missing one is made, at most.
        chat_template: Whose chat template, special tokens and generation settings it has.
        device: Where missing tokens are approximated, as torch names it.
        approximating: Called with (tokens done, tokens in all), for each of the donor's tables.
        writing: Called with (tensors done, tensors in all).

    Returns:
        Which rows are which, and how well missing ones are approximated; as text, one line.

    Raises:
        EvomergeError: A model is missing or has no tokens that can be read, the two have none in
            common, or the folder cannot be written.
    """
    from evomerge.export.transplant import export_transplant
    from evomerge.transplants.folder import Transplant

    wanted = Transplant(
        donor=donor,
        model=model,
        approximation_method=approximation_method,
        k=k,
        chat_template=chat_template,
    )
    return export_transplant(
        wanted, Path(out), device=device, approximating=approximating, writing=writing
    )
