"""Score a model folder by itself, with plain transformers: exports must be what was scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evomerge.evaluation.engine import device_name
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.prepared import MakeEngine, PreparedSuites
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.suite import Suite
from evomerge.evaluation.transformers_engine import TransformersEngine
from evomerge.merging.candidate import load_model
from evomerge.merging.quantized import QuantizedLayers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["FolderScores", "score_folder", "score_model", "score_splits"]


@dataclass(frozen=True)
class FolderScores:
    """Scores of a model folder.

    Attributes:
        scores: Of its items, and their metrics.
        device: What it ran on, by its name.
        dtype: Of its parameters.
    """

    scores: Scores
    device: str
    dtype: torch.dtype


def score_folder(
    folder: Path,
    suites: Sequence[Suite],
    split: str,
    rungs: Sequence[float] = (),
    *,
    like: str | None = None,
    engine: EngineChoice | None = None,
) -> FolderScores:
    """Load a model folder and score it on one split; see ``score_splits``."""
    return score_splits(folder, suites, [split], rungs, like=like, engine=engine)[split]


def score_splits(
    folder: Path,
    suites: Sequence[Suite],
    splits: Sequence[str],
    rungs: Sequence[float] = (),
    *,
    like: str | None = None,
    engine: EngineChoice | None = None,
) -> Mapping[str, FolderScores]:
    """Load a model folder and score it.

    Args:
        folder: Holds weights, config and tokenizer.
        suites: Task suites.
        splits: Some of ``search``, ``validation`` and ``test``.
        rungs: What cut the batches of the search items when the folder's trial was scored.
        like: Name of the device its trial was scored on, if that is known.
        engine: What transformers and lm-eval are told, and what the model is quantized to; vLLM
            does not run here.

    Returns:
        By split, scores computed as a worker computes them: on the GPU if there is one and the
        trial was not scored on the CPU, else on one thread.
    """
    from transformers import AutoTokenizer

    device = "cuda" if torch.cuda.is_available() and like != "cpu" else "cpu"
    engine = engine or EngineChoice()
    model = load_model(str(folder), "auto", engine.attention)
    model.to(device)  # type: ignore[arg-type]
    if engine.quantize is not None:
        QuantizedLayers(model, engine.quantize)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for split in splits:
        cut = rungs if split == "search" else ()
        scores = score_model(model, tokenizer, suites, split, cut, reading=engine.reading)
        found[split] = FolderScores(scores, device_name(device), model.dtype)
    return found


def score_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    suites: Sequence[Suite],
    split: str,
    rungs: Sequence[float] = (),
    make_engine: MakeEngine | None = None,
    reading: Mapping[str, object] | None = None,
) -> Scores:
    """Score a live model where it is, on one thread as a worker does.

    Args:
        model: Not in training.
        tokenizer: Of the model.
        suites: Task suites.
        split: One of ``search``, ``validation`` and ``test``.
        rungs: What cuts the batches.
        make_engine: See ``PreparedSuites``; ``None``: transformers, that reads so.
        reading: See ``LanguageModel``.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in another order could flip a close call
    try:
        make_engine = make_engine or partial(TransformersEngine, reading=reading)
        prepared = PreparedSuites.of(suites, split, model, tokenizer, rungs, make_engine, reading)
        return prepared.score()
    finally:
        torch.set_num_threads(threads)
