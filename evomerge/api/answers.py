"""What the model of a trial answers: it is merged again, and asked again."""

from __future__ import annotations

from functools import partial

import pandas as pd

from evomerge.cache import cache_folder
from evomerge.errors import StudyError
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.evaluation.suite import SPLITS
from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.plain_yaml import placed_in
from evomerge.recipe.files import stored_recipe
from evomerge.runs.loaded import Loaded
from evomerge.runs.stored import read_experiment
from evomerge.study.folder import StudyFolder
from evomerge.study.records import TrialRecord

__all__ = ["answered_items"]


def answered_items(folder: StudyFolder, trial: TrialRecord, split: str) -> pd.DataFrame:
    """Merge a trial's recipe in memory, and let it answer the items of a split.

    Args:
        folder: Its study; a stage, where there are stages.
        trial: One with a recipe.
        split: ``search``, ``validation`` or ``test``.

    Returns:
        A row per item: ``task``, ``item`` (its row in the dataset split), ``prompt``, ``answer`` as
        the model gave it, ``gold``, and a column per metric, NaN where a task has no such metric.

    Raises:
        EvomergeError: The models or tasks of the study are gone, or it has no such split.
    """
    with placed_in(folder.experiment):
        loaded = Loaded.of(read_experiment(folder))
    _require_split(loaded, split)
    prepared = _prepared(loaded, trial, split)
    scores = pd.DataFrame(
        [(s.task, s.item, s.metric, s.score) for s in prepared.score().items],
        columns=["task", "item", "metric", "score"],
    )
    metrics = scores.pivot_table(index=["task", "item"], columns="metric", values="score")
    texts = pd.DataFrame(
        [(task, row, s.prompt, s.answer, s.gold) for task, row, s in prepared.item_samples()],
        columns=["task", "item", "prompt", "answer", "gold"],
    )
    found = texts.merge(metrics.reset_index(), on=["task", "item"], how="outer", sort=False)
    return found.sort_values(["task", "item"], ignore_index=True)


def _require_split(loaded: Loaded, split: str) -> None:
    known = [name for name in SPLITS if loaded.tasks.prompted(name)]
    if split not in known:
        raise StudyError(f"expected one of the splits {', '.join(known)}, got {split!r}")


def _prepared(loaded: Loaded, trial: TrialRecord, split: str) -> PreparedSuites:
    """Bind the items of a split to the merged model."""
    from transformers import AutoTokenizer

    models = loaded.models
    sources = Sources.of(models, cache_folder("experts"))
    candidate = LiveCandidate(sources, models.dtype)
    candidate.materialise(stored_recipe(trial.recipe, trial.number))
    tokenizer = AutoTokenizer.from_pretrained(sources.anchor.companions)
    make_engine = partial(TransformersEngine, reading=loaded.experiment.engine.reading)
    prompted = loaded.tasks.prompted(split)
    return PreparedSuites(prompted, candidate.model, tokenizer, make_engine=make_engine)
