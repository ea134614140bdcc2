"""What is known of an exported model: its trial's scores, and those of its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import EvalResult

from evomerge.analysis.forgetting import forgetting_rows
from evomerge.analysis.gain import no_gain
from evomerge.analysis.intervals import Estimate
from evomerge.evaluation.catalogue import TaskCatalogue
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.suite import REPORT_ONLY, Suite
from evomerge.export.card import CardRow, Findings
from evomerge.export.rescore import FolderScores, score_folder, score_splits
from evomerge.merging.quantized import QUANTIZATIONS
from evomerge.origins import is_baseline, is_single_model, model_label
from evomerge.study.records import FinalRecord, Objective, StudyRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["collect_findings"]


def collect_findings(
    folder: Path,
    study: StudyRecord,
    trial: TrialRecord,
    suites: Sequence[Suite],
    *,
    rungs: Sequence[float] = (),
    items: pd.DataFrame | None = None,
    engine: EngineChoice | None = None,
) -> tuple[Findings, FolderScores]:
    """Score a trial's folder, and collect what its card says.

    Args:
        folder: The trial as a checkpoint.
        study: Where the trial is from.
        trial: A complete trial.
        suites: The study's task suites.
        rungs: Of the study's races.
        items: Of the study; see ``export_model``.
        engine: Of the study; see ``export_model``.

    Returns:
        The findings, and the folder's scores on the items of the search.
    """
    searched = [suite for suite in suites if not suite.report_only]
    splits = ["search", *_unscored(study, trial, searched)]
    scores = score_splits(folder, searched, splits, rungs, like=trial.device, engine=engine)
    whole: Mapping[str, FolderScores] = {}
    if engine is not None and engine.quantize is not None:
        whole = score_splits(folder, searched, splits, rungs, like=trial.device)
    if items is not None and not _is_reported(study, trial):
        reported = [suite for suite in suites if suite.report_only]
        found = score_folder(folder, reported, "test", like=trial.device, engine=engine).scores
        study, items = _with_report(study, trial, found, items)
    forgetting = () if items is None else forgetting_rows(study, items)
    findings = Findings(
        objectives=[o.name for o in study.objectives],
        scores=[*_card_rows(study, trial, scores), *_whole_rows(study, trial, whole)],
        results=_results(study, trial, scores),
        scored_in=_scored_in(engine),
        forgetting=[row for row in forgetting if row.number == trial.number],
        no_gain=no_gain(study, items),
        searched=TaskCatalogue([s for s in suites if s.allow_test_split]).searched_benchmarks,
    )
    return findings, scores["search"]


def _unscored(study: StudyRecord, trial: TrialRecord, suites: Sequence[Suite]) -> list[str]:
    """Name the split that is reported, where the study has no scores of the trial on it."""
    is_known = any(f.number == trial.number and f.split == "test" for f in study.finals)
    return [] if is_known or any("test" not in suite.splits for suite in suites) else ["test"]


def _is_reported(study: StudyRecord, trial: TrialRecord) -> bool:
    """Whether the study says what the trial forgot, if it does so of any trial."""
    unseen = study.report_only
    return not unseen.measures or any(r.number == trial.number for r in unseen.records)


def _with_report(
    study: StudyRecord, trial: TrialRecord, scores: Scores, items: pd.DataFrame
) -> tuple[StudyRecord, pd.DataFrame]:
    """Add a trial's scores on the tasks that are only reported to the study and its items."""
    import pandas as pd

    unseen = study.report_only
    metrics = [scores.metrics[m.task][m.metric] for m in unseen.measures]
    values, stderr = tuple(m.value for m in metrics), tuple(m.stderr for m in metrics)
    own = FinalRecord(trial.number, trial.origin, REPORT_ONLY, values, stderr, chosen=False)
    rows = pd.DataFrame([asdict(item) for item in scores.items])
    return (
        replace(study, report_only=replace(unseen, records=(*unseen.records, own))),
        pd.concat([items, rows.assign(trial=trial.number, split=REPORT_ONLY)]),
    )


def _card_rows(
    study: StudyRecord, trial: TrialRecord, scores: Mapping[str, FolderScores]
) -> list[CardRow]:
    """List this model's scores, then those of others on the test items."""
    this = "this model" if is_single_model(trial.origin) else "this merge"
    rows = [CardRow(this, "search", _texts(trial.values, trial.stderr))]
    own = [final for final in study.finals if final.number == trial.number]
    rows += [CardRow(this, f.split, _texts(f.values, f.stderr)) for f in own]
    if "test" in scores:
        rows.append(CardRow(this, "test", _read(study.objectives, scores["test"])))
    for final in study.finals:
        if final.split == "test" and final not in own:
            beside = "" if is_baseline(final.origin) else " (not this model)"
            name = f"{model_label(final.origin, final.number)}{beside}"
            rows.append(CardRow(name, "test", _texts(final.values, final.stderr)))
    return rows


def _whole_rows(
    study: StudyRecord, trial: TrialRecord, scores: Mapping[str, FolderScores]
) -> list[CardRow]:
    """List what the folder scores as it is, where its trial was scored quantized."""
    this = "this model" if is_single_model(trial.origin) else "this merge"
    return [
        CardRow(f"{this}, not quantized", split, _read(study.objectives, found))
        for split, found in scores.items()
    ]


def _scored_in(engine: EngineChoice | None) -> str | None:
    """Say what the scores of a study were made with, if it was not what is exported."""
    if engine is None or engine.quantize is None:
        return None
    return QUANTIZATIONS[engine.quantize].summary


def _results(
    study: StudyRecord, trial: TrialRecord, scores: Mapping[str, FolderScores]
) -> list[EvalResult]:
    """List this model's scores on the test items as the Hub reads them."""
    own = next((f for f in study.finals if f.number == trial.number and f.split == "test"), None)
    found = scores["test"].scores.metrics if "test" in scores else None
    results = []
    for i, objective in enumerate(study.objectives):
        known = None if found is None else found.get(objective.task, {}).get(objective.metric)
        value = own.values[i] if own else None if known is None else known.value
        if value is not None and not objective.is_cost:
            metric, _, filtering = objective.metric.partition(",")
            results.append(
                EvalResult(
                    task_type="text-generation",
                    dataset_type=objective.task,
                    dataset_name=objective.task,
                    dataset_split="test",
                    metric_type=metric,
                    metric_name=f"{metric} ({filtering})" if filtering else metric,
                    metric_value=round(value, 4),
                )
            )
    return results


def _read(objectives: Sequence[Objective], found: FolderScores) -> tuple[str, ...]:
    """Write the scores of a folder; costs are not measured again."""
    metrics = found.scores.metrics
    known = [None if o.is_cost else metrics[o.task][o.metric] for o in objectives]
    return tuple("–" if m is None else str(Estimate(m.value, m.stderr)) for m in known)


def _texts(values: Sequence[float], stderr: Sequence[float]) -> tuple[str, ...]:
    return tuple(map(str, map(Estimate, values, stderr)))
