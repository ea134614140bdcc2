"""From an experiment file to its resolved form: presets inlined, paths absolute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.config.experiment import EvaluatorConfig, Experiment
from evomerge.config.overrides import apply_overrides
from evomerge.config.places import with_models_at
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.models.reference import absolute_reference
from evomerge.recipe.foreign import refuse_foreign
from evomerge.schema import parse, read_yaml, write_yaml
from evomerge.secrets import holds_password

__all__ = ["dump_experiment", "experiment_digest", "load_experiment", "resolve_evaluator"]


def load_experiment(path: Path, presets: Presets, overrides: Sequence[str] = ()) -> Experiment:
    """Read an experiment and resolve it: the result depends on no other YAML file.

    Args:
        path: The file.
        presets: Where names are looked up.
        overrides: ``KEY=VALUE`` changes, applied before anything is checked.

    Raises:
        ConfigError: Listing every fault, one line each.
    """
    written = read_yaml(path)
    refuse_foreign(written, path, wanted="an experiment")
    content = apply_overrides(written, overrides)
    where = str(path)
    experiment = parse(Experiment, content, where)
    faults = _password_faults(experiment)
    resolved = {
        **experiment.model_dump(exclude_defaults=True, mode="json"),
        "models": _resolved_models(experiment, path.parent),
        **_absolute_seeds(experiment, path.parent),
        **_collect(faults, _resolved_spaces, experiment, presets, path.parent),
        "evaluators": [
            _collect(faults, resolve_evaluator, evaluator, presets, path.parent)
            for evaluator in experiment.evaluators
        ],
    }
    if faults:
        raise ConfigError(*(f"{where}: {fault}" for fault in faults))
    return parse(Experiment, resolved, where)


def _password_faults(experiment: Experiment) -> list[str]:
    """Keep passwords out of the study's folder; studies that have one already go on."""
    if experiment.storage is None or not holds_password(experiment.storage):
        return []
    return [
        "storage: expected a URL without its password, which would be kept in the study's folder; "
        "leave it out and set PGPASSWORD (or ~/.pgpass), or write ${NAME} in its place and set "
        "that environment variable"
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
            **dict.fromkeys(("budget", "execution", "finalists", "storage"), True),
            "stages": {"__all__": {"budget"}},
        },
        exclude_defaults=True,
        mode="json",
    )
    order = list(experiment.models.experts)  # of summation
    text = json.dumps([content, order], sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return f"{experiment.schema_version}-{digest}"


def _by_name(experiment: Experiment) -> Experiment:
    return with_models_at(experiment, {name: name for name in experiment.models.located()})


def _collect(faults: list[str], resolve: Any, *arguments: Any) -> Any:
    try:
        return resolve(*arguments)
    except ConfigError as err:
        faults.extend(err.faults)
        return {}


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


def _resolved_models(experiment: Experiment, beside: Path) -> dict[str, Any]:
    models = experiment.models
    return {
        **models.model_dump(exclude_defaults=True),
        "base": absolute_reference(models.base, beside),
        "experts": {name: absolute_reference(r, beside) for name, r in models.experts.items()},
    }


def _resolved_spaces(experiment: Experiment, presets: Presets, beside: Path) -> dict[str, Any]:
    """The key that names the space, or the stages with theirs."""
    if not experiment.stages:
        return {"search_space": _resolved_space(experiment.search_space, presets, beside)}
    stages = [
        {
            **stage.model_dump(exclude_defaults=True, mode="json"),
            "search_space": _resolved_space(stage.search_space, presets, beside),
        }
        for stage in experiment.stages
    ]
    return {"stages": stages}


def _resolved_space(space: object, presets: Presets, beside: Path) -> object:
    if not isinstance(space, str):
        return space
    return read_yaml(presets.find("search_spaces", space, beside))


def resolve_evaluator(
    evaluator: str | EvaluatorConfig, presets: Presets, beside: Path
) -> dict[str, Any]:
    """Read an evaluator preset or file, its paths made absolute.

    Raises:
        ConfigError: Not found, or not an evaluator.
    """
    if isinstance(evaluator, str):
        file = presets.find("evaluators", evaluator, beside)
        evaluator = parse(EvaluatorConfig, read_yaml(file), str(file))
        beside = file.parent
    content = evaluator.model_dump(exclude_defaults=True, mode="json")
    if evaluator.include_path is not None:
        content["include_path"] = str((beside / evaluator.include_path).resolve())
    return content
