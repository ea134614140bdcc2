"""From an experiment file to its resolved form: presets inlined, paths absolute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import getitem
from os import PathLike
from pathlib import Path
from typing import Any

from evomerge.config.experiment import EvaluatorConfig, Experiment
from evomerge.config.overrides import apply_overrides, changed_by
from evomerge.config.places import with_models_at
from evomerge.config.presets import PresetKind, Presets
from evomerge.errors import ConfigError, Fault, KeyPath, collected
from evomerge.evaluation.own_metrics import NOISE
from evomerge.models.reference import absolute_reference
from evomerge.plain_yaml import in_file, placed_in
from evomerge.recipe.foreign import refuse_foreign
from evomerge.schema import Gaps, fit, parse, read_yaml, write_yaml
from evomerge.secrets import holds_password

__all__ = [
    "Draft",
    "ExperimentSource",
    "draft_content",
    "draft_experiment",
    "draft_of",
    "dump_experiment",
    "experiment_digest",
    "load_experiment",
    "read_evaluator",
]

ExperimentSource = Experiment | str | PathLike[str] | Mapping[str, Any]
"""A YAML file, the name of a preset, plain data, or an experiment that is loaded."""

# By key: what stands in where it is left out because it is wrong, and required.
_STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "models": {"models": {"base": "unknown", "experts": {"unknown": "unknown"}}},
    "search_space": {"search_space": {}},
    "stages": {"search_space": {}},
    "evaluators": {"evaluators": [{"tasks": ["unknown"]}]},
    "objectives": {"objectives": [{"task": "unknown", "metric": "unknown"}]},
}


@dataclass(frozen=True)
class Draft:
    """An experiment as far as its file can be read, to be looked at further.

    Attributes:
        experiment: Resolved, without what is wrong; ``None`` if nothing is left of it.
        faults: What is wrong, with its place.
        gaps: What was left out for it: what follows from that is no fault of its own.
        file: Where it is written; ``None`` if it came as plain data.
        parts: Files and overrides that parts of it come from, by the path of the part.
    """

    experiment: Experiment | None
    faults: tuple[Fault, ...]
    gaps: Gaps
    file: Path | None
    parts: Mapping[KeyPath, Path | str]

    def complete(self, *more: Fault) -> Experiment:
        """Give the experiment if nothing is wrong with it.

        Args:
            more: What is wrong with the resolved experiment, by its paths.

        Raises:
            ConfigError: Every fault, with its place.
        """
        if self.experiment is None or self.faults or more:
            raise ConfigError(*self.faults, *(self.located(f) for f in more))
        return self.experiment

    def located(self, fault: Fault) -> Fault:
        """Say in which file, and line, a fault of the resolved experiment is written."""
        path = self.gaps.written(fault.path)
        start = max((part for part in self.parts if path[: len(part)] == part), key=len, default=())
        source, inside = self.parts.get(start, self.file), replace(fault, path=path[len(start) :])
        if source is None:
            return inside
        return inside.at(source) if isinstance(source, str) else in_file(inside, source)


def load_experiment(path: Path, presets: Presets, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and resolve it: the result depends on no other YAML file.

    Args:
        path: The file.
        presets: Where names are looked up.
        overrides: ``KEY=VALUE`` changes, applied before anything is checked.

    Raises:
        ConfigError: Every fault.
    """
    return draft_experiment(path, presets, overrides).complete()


def draft_experiment(path: Path, presets: Presets, overrides: Sequence[str] = ()) -> Draft:
    """Read and resolve as much of an experiment as is right; see ``load_experiment``.

    Raises:
        ConfigError: The file cannot be read or is another kind, or an override sets nothing.
    """
    written = read_yaml(path)
    refuse_foreign(written, path, wanted="an experiment")
    return draft_content(written, presets, path.parent, overrides, file=path)


def draft_of(
    source: ExperimentSource, overrides: Sequence[str] = (), presets: Presets | None = None
) -> Draft:
    """Read and resolve as much of an experiment as is right, whatever it comes as.

    Args:
        source: Names and relative paths start at the current folder.
        overrides: ``KEY=VALUE`` changes.
        presets: Where names are looked up; those that ship.

    Raises:
        ConfigError: See ``draft_experiment``; or nothing has that name.
    """
    presets = presets or Presets()
    if isinstance(source, Experiment):
        source = source.model_dump(exclude_unset=True, mode="json")
    if isinstance(source, Mapping):
        return draft_content(source, presets, Path.cwd(), overrides)
    if not isinstance(source, (str, PathLike)):
        raise ConfigError(
            "expected an experiment: its keys in a dict, a file, or the name of a preset, got "
            f"{source!r:.40}"
        )
    path = presets.find("experiments", str(source), Path.cwd())
    return draft_experiment(path, presets, overrides)


def draft_content(
    written: Mapping[str, Any],
    presets: Presets,
    beside: Path,
    overrides: Sequence[str] = (),
    *,
    file: Path | None = None,
) -> Draft:
    """Resolve as much of an experiment in plain data as is right; see ``load_experiment``.

    Args:
        written: Its keys; not changed.
        presets: Where names are looked up.
        beside: Folder that relative paths start at.
        overrides: ``KEY=VALUE`` changes.
        file: Where it is written, if anywhere.

    Raises:
        ConfigError: An override sets nothing.
    """
    content = apply_overrides(written, overrides)
    faults: list[Fault] = []
    files, gaps = _inline(content, presets, beside, faults)
    _direct(content)
    fitted = fit(Experiment, content, instead=_STAND_INS, gaps=gaps)
    experiment = None if fitted.value is None else _absolute(fitted.value, beside)
    faults += [*fitted.faults, *_password_faults(experiment)]
    draft = Draft(experiment, (), fitted.gaps, file, {**changed_by(overrides), **files})
    # The paths of these are as written: nothing is left out yet where they are.
    plain = replace(draft, gaps=Gaps())
    return replace(draft, faults=tuple(map(plain.located, faults)))


def _inline(
    content: dict[str, Any], presets: Presets, beside: Path, faults: list[Fault]
) -> tuple[dict[KeyPath, Path], Gaps]:
    """Put the content of presets and files in the place of their names.

    Returns:
        The files by path, and the gaps where a name leads to none.
    """
    files: dict[KeyPath, Path] = {}
    names = dict(_names(content))
    for path, (kind, name) in names.items():
        with collected(faults, *path):
            file = presets.find(kind, name, beside)
            _at(content, path[:-1])[path[-1]] = read_yaml(file)
            files[path] = file
    for i, evaluator in enumerate(_items(content, "evaluators")):
        _anchor(evaluator, files.get(("evaluators", i), beside / "here").parent)
    return files, Gaps(frozenset(names.keys() - files.keys()))


def _names(content: Mapping[str, Any]) -> Iterator[tuple[KeyPath, tuple[PresetKind, str]]]:
    """Find the names of presets and files, wherever an experiment may have some."""
    if isinstance(name := content.get("search_space"), str):
        yield ("search_space",), ("search_spaces", name)
    for i, stage in enumerate(_items(content, "stages")):
        if isinstance(stage, Mapping) and isinstance(name := stage.get("search_space"), str):
            yield ("stages", i, "search_space"), ("search_spaces", name)
    for i, name in enumerate(_items(content, "evaluators")):
        if isinstance(name, str):
            yield ("evaluators", i), ("evaluators", name)


def _items(content: Mapping[str, Any], key: str) -> list[Any]:
    found = content.get(key)
    return found if isinstance(found, list) else []


def _at(content: Any, path: KeyPath) -> Any:
    return reduce(getitem, path, content)


def _anchor(evaluator: object, beside: Path) -> None:
    """Make the paths in an evaluator absolute: of its tasks, and of its metrics' code."""
    if not isinstance(evaluator, dict):
        return
    metrics = evaluator.get("metrics")
    inside = metrics.values() if isinstance(metrics, dict) else ()
    for holder, key in [(evaluator, "include_path"), *((metric, "file") for metric in inside)]:
        if isinstance(holder, dict) and isinstance(path := holder.get(key), str):
            holder[key] = str((beside / path).resolve())


def _direct(content: Mapping[str, Any]) -> None:
    """Spell out which way objectives go whose metric is better where it is less."""
    evaluators = [one for one in _items(content, "evaluators") if isinstance(one, dict)]
    for objective in _items(content, "objectives"):
        if isinstance(objective, dict):
            task, metric = objective.get("task"), str(objective.get("metric")).partition(",")[0]
            measured = [one for one in evaluators if task in _items(one, "tasks")]
            if any(metric in _better_less(one) for one in measured or evaluators):  # of a group
                objective.setdefault("direction", "minimize")


def _better_less(evaluator: Mapping[str, Any]) -> set[str]:
    """Name the metrics of one's own that are better where they are less, noise among them."""
    table = evaluator.get("metrics")
    metrics = table.items() if isinstance(table, dict) else ()
    less = {n for n, m in metrics if isinstance(m, dict) and m.get("higher_is_better") is False}
    noise = {f"{name}{NOISE}" for name, _ in metrics} - dict(metrics).keys()
    return less | noise


def read_evaluator(name: str, presets: Presets, beside: Path) -> EvaluatorConfig:
    """Read an evaluator preset or file, its paths made absolute.

    Raises:
        ConfigError: Not found, or not an evaluator.
    """
    file = presets.find("evaluators", name, beside)
    content = read_yaml(file)
    _anchor(content, file.parent)
    with placed_in(file):
        return parse(EvaluatorConfig, content)


def _absolute(experiment: Experiment, beside: Path) -> Experiment:
    """Make the paths of models and seeds absolute."""
    resolved = {
        **experiment.model_dump(exclude_defaults=True, mode="json"),
        "models": _absolute_models(experiment, beside),
        **_absolute_seeds(experiment, beside),
        **_absolute_prompts(experiment, beside),
    }
    return parse(Experiment, resolved)


def _password_faults(experiment: Experiment | None) -> list[Fault]:
    """Keep passwords out of the study's folder; studies that have one already go on."""
    storage = None if experiment is None else experiment.storage
    if storage is None or not holds_password(storage):
        return []
    return [
        Fault(
            ("storage",),
            "expected a URL without its password, which would be kept in the study's folder",
            "leave it out and set PGPASSWORD (or ~/.pgpass), or write ${NAME} in its place and set "
            "that environment variable",
        )
    ]


def dump_experiment(experiment: Experiment, digest: str | None = None) -> str:
    """Write a resolved experiment as YAML, its digest in the first line.

    Args:
        experiment: What to write.
        digest: What the first line says instead, of a study whose storage knows that one.
    """
    header = f"digest: {digest or experiment_digest(experiment)}"
    content = experiment.model_dump(exclude_unset=True, mode="json")
    return write_yaml({"schema_version": experiment.schema_version, **content}, header)


def experiment_digest(experiment: Experiment) -> str:
    """Name what a study is about: everything except how much, where and with whose files it runs.

    Keys at their defaults take no part, so that a study is the same after new keys have come.
    Models count by name: what they hold is compared by content (``config.inputs``).
    """
    content = _by_name(experiment).model_dump(
        exclude={
            **dict.fromkeys(("budget", "execution", "finalists", "loggers", "storage"), True),
            "stages": {"__all__": {"budget"}},
            "prompts": {"file"},
        },
        exclude_defaults=True,
        mode="json",
    )
    order = list(experiment.models.experts)  # of summation
    text = json.dumps([content, order], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{experiment.schema_version}-{digest}"


def _by_name(experiment: Experiment) -> Experiment:
    named = with_models_at(experiment, {name: name for name in experiment.models.located()})
    return named.model_copy(update={"engine": experiment.engine.counted})


def _absolute_seeds(experiment: Experiment, beside: Path) -> dict[str, Any]:
    seeds = experiment.seeds.model_dump(exclude_defaults=True, mode="json")
    for key in seeds.keys() & {"recipes", "studies"}:
        seeds[key] = [
            str((beside / Path(source).expanduser()).resolve())
            if isinstance(source, str)
            else source
            for source in seeds[key]
        ]
    return {"seeds": seeds} if seeds else {}


def _absolute_prompts(experiment: Experiment, beside: Path) -> dict[str, Any]:
    prompts = experiment.prompts.model_dump(exclude_defaults=True)
    if "file" in prompts:
        prompts["file"] = str((beside / Path(prompts["file"]).expanduser()).absolute())
    return {"prompts": prompts} if prompts else {}


def _absolute_models(experiment: Experiment, beside: Path) -> dict[str, Any]:
    models = experiment.models
    return {
        **models.model_dump(exclude_defaults=True),
        "base": absolute_reference(models.base, beside),
        "experts": {name: absolute_reference(r, beside) for name, r in models.experts.items()},
    }
