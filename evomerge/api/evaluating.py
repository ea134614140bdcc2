"""Scores of one model, live or in a folder, on tasks by name or on whole evaluators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.evaluation.suite import Suite
from evomerge.runs.parts import load_suites

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evomerge.ensembles.file import EnsembleFile
    from evomerge.ensembles.loading import EnsembleCosts
    from evomerge.evaluation.scores import Scores
    from evomerge.twins.file import Twins

__all__ = ["ensemble_file", "ensemble_scores", "evaluate", "model_scores", "wanted_suites"]


def evaluate(
    model: str | PathLike[str] | PreTrainedModel | Mapping[str, Any],
    tasks: str | Sequence[str] = (),
    *,
    evaluators: str | Sequence[str] = (),
    include_path: str | PathLike[str] | None = None,
    split: str = "test",
    limit: int | None = None,
    num_fewshot: int | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> pd.DataFrame:
    """Score a model as lm-eval does.

    Args:
        model: ``zoo:NAME``, a folder, a Hub id, or a live transformers model; or an ensemble, a
            YAML file or its keys, or ``twins.yaml`` of a merge with differences (see
            docs/artefacts.md).
        tasks: lm-eval tasks or groups, or one, scored on the split that each is reported by.
        evaluators: Instead of tasks: presets or files of evaluators.
        include_path: Folder of task YAML, for ``tasks``.
        split: Of evaluators: ``search``, ``validation`` or ``test``.
        limit: Items per task, for ``tasks``; all.
        num_fewshot: Examples in prompts, for ``tasks``; what each task says.
        tokenizer: Of a live model; that of the folder it was loaded from.

    Returns:
        A row per task or group and metric: ``task, metric, value, stderr, n``; see
        ``evaluation.scores.MetricValue``.

    Raises:
        EvomergeError: The model or a task is not there or cannot be used.
    """
    from evomerge.api.tables import metrics_table

    suites = wanted_suites(
        [tasks] if isinstance(tasks, str) else tasks,
        [evaluators] if isinstance(evaluators, str) else evaluators,
        include_path,
        split,
        limit=limit,
        num_fewshot=num_fewshot,
    )
    return metrics_table(model_scores(model, suites, split, tokenizer).metrics)


def wanted_suites(
    tasks: Sequence[str],
    evaluators: Sequence[str],
    include_path: str | PathLike[str] | None,
    split: str,
    *,
    limit: int | None = None,
    num_fewshot: int | None = None,
    presets: Presets | None = None,
) -> tuple[Suite, ...]:
    """Make suites of evaluators; or of tasks, as lm-eval's command line reads them.

    Raises:
        ConfigError: Neither or both are named, or one is not there.
    """
    if evaluators:
        if tasks or include_path is not None:
            raise ConfigError("expected evaluators, or tasks with their include path; got both")
        return load_suites(evaluators, presets or Presets(), Path.cwd())
    if not tasks:
        raise ConfigError("expected tasks or evaluators by name, got neither")
    folder = None if include_path is None else Path(include_path).resolve()
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"expected a folder of task YAML as include path, got {include_path}")
    suite = Suite(
        "tasks",
        tuple(tasks),
        folder,
        splits={split: 1.0},
        limit=limit,
        num_fewshot=num_fewshot,
    )
    return (suite,)


def model_scores(
    model: str | PathLike[str] | PreTrainedModel | Mapping[str, Any],
    suites: Sequence[Suite],
    split: str,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Scores:
    """Score a model on one split; see ``evaluate``."""
    from torch import nn

    from evomerge.export.rescore import score_folder
    from evomerge.models.reference import absolute_reference, resolve_model

    if (file := ensemble_file(model)) is not None:
        return ensemble_scores(file, suites, split)[0]
    if isinstance(model, (str, PathLike)):
        folder = resolve_model(absolute_reference(str(model), Path.cwd()))
        return score_folder(folder, suites, split).scores
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"expected zoo:NAME, a folder, a Hub id or a live model, got a {type(model).__name__}; "
            "evomerge.merge makes a model of a recipe or a trial"
        )
    return _live_scores(model, suites, split, tokenizer)


def ensemble_file(model: object) -> EnsembleFile | Twins | None:
    """Read an ensemble, or a merge with differences, whatever it comes as.

    Returns:
        ``None``: it is a single model.

    Raises:
        ConfigError: It is a YAML file, and none of them; every fault.
    """
    from evomerge.ensembles.file import load_ensemble, read_ensemble
    from evomerge.twins.file import TWINS, load_twins

    if isinstance(model, Mapping) and "ensemble" in model:
        return read_ensemble(model, Path.cwd())
    is_path = isinstance(model, (str, PathLike))
    if is_path and Path(model).name == TWINS:  # type: ignore[arg-type]
        return load_twins(Path(model).parent)  # type: ignore[arg-type]
    if is_path and Path(model).suffix in (".yaml", ".yml"):  # type: ignore[arg-type]
        return load_ensemble(Path(model))  # type: ignore[arg-type]
    return None


def ensemble_scores(
    file: EnsembleFile | Twins, suites: Sequence[Suite], split: str
) -> tuple[Scores, EnsembleCosts]:
    """Score an ensemble, or a merge with differences, on one split, and say what it takes."""
    from evomerge.ensembles.loading import LiveEnsemble
    from evomerge.export.rescore import score_model
    from evomerge.twins.file import Twins
    from evomerge.twins.routed import LiveTwins

    live: LiveTwins | LiveEnsemble
    live = LiveTwins(file) if isinstance(file, Twins) else LiveEnsemble(file)
    scores = score_model(live.model, live.tokenizer, suites, split, make_engine=live.make_engine)
    return scores, live.costs


def _live_scores(
    model: PreTrainedModel,
    suites: Sequence[Suite],
    split: str,
    tokenizer: PreTrainedTokenizerBase | None,
) -> Scores:
    """Score a live model, and leave it in the mode it was in."""
    from transformers import AutoTokenizer

    from evomerge.evaluation.teacher_forcing import as_evaluated
    from evomerge.export.rescore import score_model

    reader = tokenizer or AutoTokenizer.from_pretrained(model.name_or_path)
    with as_evaluated(model):
        return score_model(model, reader, suites, split)
