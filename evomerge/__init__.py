"""Search for merge recipes of language models.

Given fine-tuned models that share an ancestor, evomerge finds which of them to mix, per layer and
with which method, and exports any point of the resulting Pareto front as an ordinary checkpoint.

Importing this package has no side effects and imports no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from pandas import DataFrame

__all__ = ["__version__", "items"]

__version__ = "0.1.0"


def items(folder: str | PathLike[str]) -> DataFrame:
    """Read the score of every item that a study has scored.

    Args:
        folder: A study folder; it may be running.

    Returns:
        One row per trial, split, task, item and metric: ``trial, split, task, item, metric, score,
        smooth, tokens, seconds``; see ``evaluation.scores.ItemScore``.

    Raises:
        StudyError: No study here.
    """
    from pathlib import Path

    from evomerge.evaluation.store import ItemStore
    from evomerge.study.folder import StudyFolder

    return ItemStore(StudyFolder(Path(folder)).require().items).read()
