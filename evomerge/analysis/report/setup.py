"""The experiment behind a study, in the few lines that say what was searched and how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evomerge.analysis.gene_shares import trials_with_genes
from evomerge.origins import EXPERT, kind_and_name, model_label
from evomerge.schema import write_yaml
from evomerge.study.records import StudyRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["About", "Setup", "setup"]

_NOISE = "_noise"  # as evaluation.own_metrics has it, which this room does not import


@dataclass(frozen=True)
class About:
    """What is known of a run beside its trials.

    Attributes:
        experiment: Its resolved keys as plain data, without passwords; may be empty.
        versions: Of the packages on this machine, by name.
        folder: The study's, as commands name it.
    """

    experiment: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    folder: str = "DIR"


@dataclass(frozen=True)
class Setup:
    """What was searched, and how.

    Attributes:
        rows: Name and text, for people.
        models: Name of every baseline and what it is.
        yaml: The whole experiment; empty where it is not known.
    """

    rows: tuple[tuple[str, str], ...]
    models: tuple[tuple[str, str], ...]
    yaml: str


def setup(study: StudyRecord, about: About, items: pd.DataFrame | None = None) -> Setup:
    """Describe the experiment behind a study: also its baselines, and what it ran on.

    Args:
        study: With trials.
        about: What is known of the run beside them.
        items: Item scores, for the noise of judges.
    """
    experiment = about.experiment
    return Setup(
        rows=tuple((n, text) for n, text in [*_rows(study, about), *_noise(items)] if text),
        models=tuple(_models(study, experiment)),
        yaml=write_yaml(dict(experiment)) if experiment else "",
    )


def _rows(study: StudyRecord, about: About) -> Iterator[tuple[str, str]]:
    experiment = about.experiment
    space, evaluators = experiment.get("search_space"), experiment.get("evaluators")
    if isinstance(space, Mapping):
        yield "search space", "; ".join(f"{key} {_short(value)}" for key, value in space.items())
    genes = {name for trial in trials_with_genes(study) for name in trial.params}
    yield "genes", str(len(genes)) if genes else ""
    yield "sampler", _short(experiment.get("sampler"))
    yield "objectives", "; ".join(_objective(o.name, o.direction) for o in study.objectives)
    yield from ((o.name, o.meaning) for o in study.objectives)
    yield "constraints", "; ".join(study.constraints)
    for evaluator in evaluators if isinstance(evaluators, list) else []:
        if isinstance(evaluator, Mapping):
            kept = {k: v for k, v in evaluator.items() if k not in ("tasks", "include_path")}
            if "metrics" in kept:  # whose questions and code are in the YAML below
                kept["metrics"] = list(kept["metrics"])
            name = "only reported" if kept.pop("report_only", False) else "tasks"
            yield name, "; ".join([_short(evaluator.get("tasks")), *_pairs(kept)])
    for key in ("budget", "execution", "race", "gates", "seed", "finalists", "engine"):
        yield key, _short(experiment.get(key))
    devices = dict.fromkeys(t.device for t in study.trials if t.device)
    yield "scored on", ", ".join(devices)
    yield "versions", ", ".join(f"{name} {version}" for name, version in about.versions.items())


def _noise(items: pd.DataFrame | None) -> Iterator[tuple[str, str]]:
    """Say how far verdicts on one answer are apart, where judges were asked several times."""
    if items is None or items.empty:
        return
    metrics = items.metric.astype(str).str.split(",").str[0]  # whichever answers it is of
    noisy = items[metrics.str.endswith(_NOISE)]
    tasks, judged = noisy.task.astype(str), metrics[noisy.index].str.removesuffix(_NOISE)
    for (task, name), own in noisy.groupby([tasks, judged]):
        text = f"standard deviation {own.score.mean():.3g} between verdicts on one answer"
        yield "judge", f"{task} {name}: {text}, on average"


def _models(study: StudyRecord, experiment: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Name the baselines; ``uniform average`` and other seeds explain themselves."""
    models = experiment.get("models")
    known = models if isinstance(models, Mapping) else {}
    experts = known.get("experts")
    places = experts if isinstance(experts, Mapping) else {}
    if "base" in known:
        yield "base", _short(known["base"])
    for name, reference in places.items():
        yield model_label(f"{EXPERT}:{name}", 0), _short(reference)
    for trial in study.trials:
        kind, name = kind_and_name(trial.origin)
        if kind not in ("base", EXPERT, "search"):
            yield model_label(trial.origin, trial.number, study.noun), _MEANING.get(kind, "")


_MEANING = {
    "uniform": "the plain average of the experts",
    "task_arithmetic": "the sum of all task vectors, each times this number, on the base",
    "recipe": "a recipe that the search started from",
    "study": "a trial of another study that the search started from",
    "winner": "a merge that an earlier stage handed on",
}


def _objective(name: str, direction: str) -> str:
    return f"{name} ({'lower' if direction == 'minimize' else 'higher'} is better)"


def _pairs(content: Mapping[str, object]) -> list[str]:
    return [f"{key} {_short(value)}" for key, value in content.items()]


def _short(value: object) -> str:
    """Write a value of YAML in one line, without quotes, outer brackets and keys left open."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        said = [(key, item) for key, item in value.items() if item is not None]
        return ", ".join(f"{key}: {_nested(item)}" for key, item in said)
    if isinstance(value, (list, tuple)):
        return ", ".join(_nested(item) for item in value)
    return "" if value is None else str(value)


def _nested(value: object) -> str:
    text = _short(value)
    if isinstance(value, Mapping):
        return f"{{{text}}}"
    return f"[{text}]" if isinstance(value, (list, tuple)) else text
