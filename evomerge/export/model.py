"""Export one trial of a study: model folder, recipe, or mergekit YAML."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from huggingface_hub import EvalResult

from evomerge.analysis.forgetting import forgetting_rows
from evomerge.analysis.gain import no_gain
from evomerge.analysis.intervals import Estimate
from evomerge.errors import ConfigError
from evomerge.evaluation.catalogue import TaskCatalogue
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.suite import REPORT_ONLY, Suite
from evomerge.export.card import CardRow, Findings, model_card
from evomerge.export.lineage import ancestors, parents
from evomerge.export.rescore import FolderScores, score_folder, score_splits
from evomerge.export.rounding import FoldError, fold_error
from evomerge.merging.candidate import output_dtype
from evomerge.merging.finite import NonFinite
from evomerge.merging.folder import SHARD_BYTES, write_checkpoint
from evomerge.merging.quantised import QUANTISATIONS
from evomerge.merging.sources import Sources
from evomerge.origins import is_baseline, is_single_model, model_label
from evomerge.recipe.files import dump_recipe, load_recipe, public_recipe, stored_recipe
from evomerge.recipe.recipe import Dtype, Recipe
from evomerge.study.records import FinalRecord, Objective, StudyRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

_SLACK = 0.02  # an item or two
_RELATIVE = 1e-4  # of what adds up the rounding of a whole forward pass in float32
_RECIPE = "recipe.yaml"

__all__ = [
    "CheckpointForm",
    "Rescored",
    "export_model",
    "export_text",
    "open_repository",
    "push_folder",
]


@dataclass(frozen=True)
class CheckpointForm:
    """How a folder is written.

    Attributes:
        dtype: Of its tensors; ``None``: the trial's.
        shard_bytes: Largest size of one file.
        allow_non_finite: See ``write_checkpoint``.
    """

    dtype: Dtype | None = None
    shard_bytes: int = SHARD_BYTES
    allow_non_finite: bool = False


@dataclass(frozen=True)
class Rescored:
    """Scores of an exported folder beside those of its trial; costs are not measured again.

    Attributes:
        objectives: Names.
        trial: Values as recorded.
        folder: Values of the folder, loaded by plain transformers.
        stderr: Standard errors of the trial's values.
        folding: What rounding did to a path with scales; ``None`` where nothing was folded.
        is_same_engine: Whether the trial was scored by transformers, too.
        non_finite: NaN and infinity in the folder, where they were allowed.
        trial_device: Name of what the trial was scored on; ``None`` if that is not known.
        device: Name of what the folder was scored on.
        dtype: Of the parameters.
        is_same_dtype: Whether the trial had them in it, too.
    """

    objectives: tuple[str, ...]
    trial: tuple[float, ...]
    folder: tuple[float, ...]
    stderr: tuple[float, ...]
    folding: FoldError | None = None
    is_same_engine: bool = True
    non_finite: NonFinite | None = None
    trial_device: str | None = "cpu"
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    is_same_dtype: bool = True

    @property
    def equal(self) -> bool:
        """Whether the folder scores what the trial scored, as closely as ``rule`` says.

        Rounding may flip an item or two also where the standard error is 0, or unknown.
        """
        limits = [1e-12] * len(self.stderr)
        if self._differences:
            limits = [
                max(0.0 if math.isnan(stderr) else stderr, _SLACK, self._relative * abs(value))
                for stderr, value in zip(self.stderr, self.trial, strict=True)
            ]
        pairs = zip(self.trial, self.folder, limits, strict=True)
        return all(abs(a - b) <= limit for a, b, limit in pairs)

    @property
    def rule(self) -> str:
        """How closely the folder must score what the trial scored, and why, in one line."""
        if not self._differences:
            return f"on {self.device} as the trial was: values must be equal"
        return (
            f"values may differ by a standard error, {_SLACK} or {self._relative:.2%} of the "
            f"value, whichever is most, because {' and '.join(self._differences)}"
        )

    @property
    def _differences(self) -> list[str]:
        """Why the same model may round differently."""
        where = self.trial_device or "a device that was not recorded"
        reasons = {
            "its scales were folded": self.folding is not None,
            "vLLM scored the trial": not self.is_same_engine,
            "the trial had another dtype": not self.is_same_dtype,
            f"the trial was scored on {where}, the folder on {self.device}, in "
            f"{str(self.dtype).removeprefix('torch.')}": self.trial_device != self.device,
        }
        return [reason for reason, holds in reasons.items() if holds]

    @property
    def _relative(self) -> float:
        return max(_RELATIVE, 4 * torch.finfo(self.dtype).eps)


def export_model(
    study: StudyRecord,
    trial: TrialRecord,
    out: Path,
    suites: Sequence[Suite],
    progress: Callable[[int, int], None] | None = None,
    *,
    rungs: Sequence[float] = (),
    items: pd.DataFrame | None = None,
    engine: EngineChoice | None = None,
    form: CheckpointForm | None = None,
) -> Rescored:
    """Write a trial as a Hugging Face folder with recipe and model card, and score it again.

    The card of one that was in no finals quotes the scores of the folder on the test items, and on
    the tasks that are only reported.

    Args:
        study: Where the trial is from.
        trial: A complete trial.
        out: Folder to write.
        suites: The study's task suites.
        progress: Called with (tensors done, tensors in all).
        rungs: Of the study's races.
        items: Of the study, as ``ItemStore.read`` returns them: without them the card says nothing
            of what was forgotten.
        engine: Of the study; absent: transformers, by which the folder is scored in any case.
        form: How the folder is written.

    Raises:
        CheckpointError: The folder cannot be written, or would hold NaN or infinity.
    """
    form = form or CheckpointForm()
    recipe = stored_recipe(trial.recipe, trial.number)
    is_other = form.dtype is not None and form.dtype != _dtype_name(recipe)
    recipe = replace(recipe, dtype=form.dtype or recipe.dtype)
    non_finite = write_checkpoint(
        recipe,
        out,
        shard_bytes=form.shard_bytes,
        progress=progress,
        allow_non_finite=form.allow_non_finite,
    )
    scaled = any(hop.scale != 1 for hop in recipe.path)
    folding = fold_error(recipe, out) if scaled else None
    searched = [suite for suite in suites if not suite.report_only]
    splits = ["search", *_unscored(study, trial, searched)]
    scores = score_splits(out, searched, splits, rungs, like=trial.device, engine=engine)
    whole: Mapping[str, FolderScores] = {}
    if engine is not None and engine.quantise is not None:
        whole = score_splits(out, searched, splits, rungs, like=trial.device)
    if items is not None and not _is_reported(study, trial):
        reported = [suite for suite in suites if suite.report_only]
        found = score_folder(out, reported, "test", like=trial.device, engine=engine).scores
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
    card = model_card(
        out.name,
        recipe,
        findings,
        origin=trial.origin,
        descent=ancestors(parents(recipe, trial.origin)),
        folding=folding,
        non_finite=non_finite,
        parts=Sources.of(recipe).part_notes,
    )
    (out / "README.md").write_text(card, encoding="utf-8")
    return replace(
        _beside(study, trial, scores["search"]),
        folding=folding,
        is_same_engine=engine is None or engine.name == "transformers",
        non_finite=non_finite,
        is_same_dtype=not is_other,
    )


def _dtype_name(recipe: Recipe) -> str:
    """Name the dtype that candidates of a recipe have."""
    if recipe.dtype is not None:
        return recipe.dtype
    return str(output_dtype(Sources.of(recipe), None)).removeprefix("torch.")


def _beside(study: StudyRecord, trial: TrialRecord, again: FolderScores) -> Rescored:
    """Put what a folder scored beside what its trial did."""
    scored = [(i, o) for i, o in enumerate(study.objectives) if not o.is_cost]
    return Rescored(
        objectives=tuple(o.name for _, o in scored),
        trial=tuple(trial.values[i] for i, _ in scored),
        folder=tuple(again.scores.metrics[o.task][o.metric].value for _, o in scored),
        stderr=tuple(trial.stderr[i] for i, _ in scored),
        trial_device=trial.device,
        device=again.device,
        dtype=again.dtype,
    )


def export_text(trial: TrialRecord, format: str, out: Path) -> str:
    """Write a trial as YAML.

    Args:
        trial: A trial with a recipe.
        format: ``recipe`` or ``mergekit``.
        out: The file to be; model folders are named from where it lies.

    Raises:
        RecipeError: mergekit cannot express the recipe.
    """
    recipe = stored_recipe(trial.recipe, trial.number)
    if format == "mergekit":
        from evomerge.recipe.mergekit import to_mergekit

        text: str = to_mergekit(recipe, beside=out.parent)
        return text
    header = f"evomerge merge THIS --out DIR\ndigest: {recipe.digest}"
    return dump_recipe(recipe, header, beside=out.parent)


def open_repository(repository: str, *, is_public: bool) -> None:
    """Make sure of a repository on the Hub before the work begins; created if needed.

    Args:
        repository: ``owner/name``.
        is_public: Whether everybody may read it; else a public one is refused.

    Raises:
        ConfigError: It is public, and was not to be.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, private=not is_public, exist_ok=True)
    if not is_public and not api.repo_info(repository).private:
        raise ConfigError(f"{repository} exists and is public; add --public to publish there")


def push_folder(folder: Path, repository: str) -> str:
    """Upload an exported folder to the Hub, its recipe without the places of local models.

    Args:
        folder: As ``export_model`` wrote it.
        repository: ``owner/name``, which exists.

    Returns:
        Address of the commit.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    recipe = public_recipe(load_recipe(folder / _RECIPE))
    api.upload_folder(repo_id=repository, folder_path=folder, ignore_patterns=[_RECIPE])
    content = dump_recipe(recipe).encode()
    return str(api.upload_file(path_or_fileobj=content, path_in_repo=_RECIPE, repo_id=repository))


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
    """List what the folder scores as it is, where its trial was scored quantised."""
    this = "this model" if is_single_model(trial.origin) else "this merge"
    return [
        CardRow(f"{this}, not quantised", split, _read(study.objectives, found))
        for split, found in scores.items()
    ]


def _scored_in(engine: EngineChoice | None) -> str | None:
    """Say what the scores of a study were made with, if it was not what is exported."""
    if engine is None or engine.quantise is None:
        return None
    return QUANTISATIONS[engine.quantise].summary


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
