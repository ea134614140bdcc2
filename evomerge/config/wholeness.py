"""Whether the files of a study belong together: nothing is continued that has lost a part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord

__all__ = ["require_items", "require_store"]


def require_store(folder: StudyFolder, store: str, trials: Sequence[TrialRecord]) -> None:
    """Check that the trials are still there from which other files were made.

    Args:
        folder: Of the study.
        store: Where trials are kept, for people.
        trials: All that were asked.

    Raises:
        StudyError: There is no trial, though there are files that come from trials.
    """
    if trials:
        return
    made = [*sorted(folder.items.glob("*.parquet"))[:1], folder.finals]
    if found := [path for path in made if path.exists()]:
        raise StudyError(
            f"expected the trials that {found[0]} comes from, found none in {store}; restore it, "
            "or choose another folder for a new study"
        )


def require_items(
    folder: StudyFolder, store: str, trials: Sequence[TrialRecord], driver: str | None
) -> None:
    """Check that the item scores of a study fit its trials, before it is continued.

    Args:
        folder: Of the study.
        store: Where trials are kept, for people.
        trials: All that were asked.
        driver: Id of the folder's driver; the scores of others' trials are in their folders.

    Raises:
        StudyError: Scores are missing, or are of trials that are not known.
    """
    stored = ItemStore(folder.items).trials("search")
    if unknown := stored - {trial.number for trial in trials}:
        raise StudyError(
            f"{folder.items} holds the scores of {_named(unknown)}, which {store} does not: trials "
            "were lost; restore it"
        )
    own = [trial for trial in trials if trial.driver in (None, driver)]
    if missing := {trial.number for trial in own if trial.n_scores} - stored:
        raise StudyError(
            f"expected the item scores of {_named(missing)} in {folder.items}, found none; restore "
            "them, or start a new study with 'seeds: {studies: [...]}'"
        )


def _named(numbers: Iterable[int]) -> str:
    first, *others = sorted(numbers)
    return f"trial {first}" + (f" and {len(others)} more" if others else "")
