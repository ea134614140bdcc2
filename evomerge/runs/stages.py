"""Experiments that chain search spaces: each stage is a study, its winners are experts of the next.

The folder of such an experiment holds ``stages/1``, ``stages/2`` …, ordinary study folders. A stage
that is done hands on plain checkpoints, named ``stage1_0``, ``stage1_1`` …, in its ``models``; it
is never searched again. An experiment of one space is a chain of one study in the folder itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.analysis.winners import stage_winners
from evomerge.config.experiment import Experiment, StageConfig
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.recipe.files import dump_recipe, recipe_from_data
from evomerge.recipe.recipe import Recipe
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.optuna_study import stored_inputs
from evomerge.runs.reading import begun_stages, read_study
from evomerge.runs.run import (
    change_study,
    continue_study,
    load_study,
    require_same_models,
    start_study,
    update_study,
)
from evomerge.runs.stored import change_experiment, read_experiment, write_experiment
from evomerge.schema import parse
from evomerge.study.folder import StudyFolder, write_atomically
from evomerge.study.json_files import read_json
from evomerge.study.records import StudyRecord, TrialRecord

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue

__all__ = [
    "change_run",
    "continue_run",
    "load_stages",
    "start_run",
]

_DATA_FLOW = ("dataflow", "hybrid")  # kinds of space whose models have other layers than the base


def start_run(
    path: Path, presets: Presets, overrides: Sequence[str], folder: StudyFolder, events: Events
) -> StudyRecord:
    """Load an experiment of one or several stages, make its folder, and run it.

    Args:
        path: Experiment file.
        presets: Where names are looked up.
        overrides: ``KEY=VALUE`` changes.
        folder: Where; a study in which no trial was ever asked makes room. Stays untouched if the
            experiment has faults; held from the moment it is made.
        events: Hears what happens.

    Raises:
        ConfigError: Listing every fault of every stage.
        StudyError: Another study is there or is just being made, or an override changes no stage.
    """
    events.phase("reading the experiment")
    experiment = _read(path, presets, overrides, folder)
    events.phase("checking the experiment")
    with _made(experiment, path, folder) as loaded:
        return continue_run(folder, events, loaded=loaded)


def _read(
    path: Path, presets: Presets, overrides: Sequence[str], folder: StudyFolder
) -> Experiment:
    """Read an experiment, with all that can be told at once."""
    if not _is_unbegun(folder):
        folder.require_free()
    experiment = load_experiment(path, presets, overrides)
    if experiment.stages and any(override.startswith("budget") for override in overrides):
        _require_follower(folder, experiment)
    return experiment


@contextmanager
def _made(experiment: Experiment, path: Path, folder: StudyFolder) -> Iterator[Loaded]:
    if experiment.stages:
        loaded, *_ = load_stages(experiment, str(path))
    else:
        loaded = load_study(experiment, str(path), folder)
        experiment = loaded.experiment
    with folder.lock():
        if _is_unbegun(folder):
            for file in (folder.experiment, folder.journal):
                file.unlink(missing_ok=True)
        write_experiment(folder.require_free(), experiment)
        yield loaded


def _is_unbegun(folder: StudyFolder) -> bool:
    """Tell whether a study ended before its first trial, say because of a model that is broken."""
    if not folder.experiment.is_file():
        return False
    experiment = read_experiment(folder)
    is_plain = not experiment.stages and experiment.storage is None
    return is_plain and not read_study(folder).trials


def change_run(
    folder: StudyFolder, overrides: Sequence[str], *, accept_changes: bool = False
) -> None:
    """Change how much or where a run goes on, while no driver runs it.

    With ``accept_changes`` models that moved may be others than those of earlier trials.

    ``stages.N.budget`` is that of one stage, the first being 0; ``budget`` is that of every stage
    without one of its own. A stage that is done, its winners being in use, keeps what it had: an
    override that could change no other is refused.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the run is about, or only what is done; or the
            folder is in use.
    """
    if not read_experiment(folder).stages:
        change_study(folder, overrides, accept_changes=accept_changes)
        return
    with folder.lock():
        before, after = read_experiment(folder), change_experiment(folder, overrides)
        _require_open(folder, before, after)
        for inside in begun_stages(folder, after):
            require_same_models(inside, after, accept_changes=accept_changes)
        latest = len(begun_stages(folder, after))
        if latest and not folder.stage(latest).winners.is_file():
            update_study(folder.stage(latest), _stage_of(after, latest, folder))
        if after != before:
            write_experiment(folder, after)


def continue_run(
    folder: StudyFolder,
    events: Events,
    *,
    accept_changes: bool = False,
    loaded: Loaded | None = None,
) -> StudyRecord:
    """Run every stage that is not done, from wherever the last driver stopped.

    Args:
        folder: The run.
        events: Progress.
        accept_changes: Whether models and items may be others than those of earlier trials.
        loaded: The experiment, or its first stage, if this process has just made the run.

    Returns:
        The study of the last stage.

    Raises:
        ConfigError: The experiment does not fit together.
        StudyError: The folder is in use, or a stage found no merge to hand on.
    """
    if not read_experiment(folder).stages:
        return continue_study(folder, events, accept_changes=accept_changes, loaded=loaded)
    with folder.lock():
        experiment = read_experiment(folder)
        earlier: dict[str, str] = {}
        for number, stage in enumerate(experiment.stages, 1):
            inside = folder.stage(number)
            if inside.winners.is_file():
                earlier |= stored_inputs(inside, read_experiment(inside))
                continue
            wanted = _stage_of(experiment, number, folder)
            if inside.experiment.is_file():
                update_study(inside, wanted)
            else:
                tasks = None if loaded is None else loaded.tasks
                loaded = load_study(wanted, str(folder.experiment), inside, tasks)
                start_study(loaded, inside)
            study = continue_study(
                inside,
                events,
                accept_changes=accept_changes,
                earlier=earlier,
                loaded=loaded,
            )
            earlier |= stored_inputs(inside, wanted)
            if number < len(experiment.stages):
                events.phase(f"writing the winners of stage {number}")
                _hand_on(inside, study, number, stage_winners(study, stage.keep, stage.keep_by))
    return study  # the last stage has no winners: it is always continued


def load_stages(experiment: Experiment, where: str) -> tuple[Loaded, ...]:
    """Build the parts of every stage, the base standing in for winners that do not exist yet.

    Raises:
        ConfigError: Listing every fault of every stage, one line each.
    """
    if not experiment.stages:
        return (Loaded.of(experiment, where),)
    found: list[Loaded] = []
    faults = list(_chain_faults(experiment, where))
    winners: dict[str, str] = {}
    tasks: TaskCatalogue | None = None
    for i, stage in enumerate(experiment.stages):
        try:
            found.append(Loaded.of(_stage_experiment(experiment, i + 1, winners), where, tasks))
            tasks = found[-1].tasks
        except ConfigError as err:
            faults += [_of_stage(fault, i, stage, where) for fault in err.faults]
        winners |= {_name(i + 1, rank): experiment.models.base for rank in range(stage.keep)}
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
    return tuple(found)


def _of_stage(fault: str, i: int, stage: StageConfig, where: str) -> str:
    """Name the stage in a fault of what is its own."""
    for key in ("search_space", "sampler"):
        if getattr(stage, key) is not None:
            fault = fault.replace(f"{where}: {key}", f"{where}: stages[{i}].{key}", 1)
    return fault


def _stage_experiment(
    experiment: Experiment, number: int, winners: Mapping[str, str]
) -> Experiment:
    """The experiment of one stage by itself; only the last stage has held-out finals."""
    stage, is_last = experiment.stages[number - 1], number == len(experiment.stages)
    whole = experiment.model_dump(exclude_unset=True, mode="json")
    own = stage.model_dump(include={"search_space", "sampler", "budget"}, mode="json")
    content = {
        **{key: value for key, value in whole.items() if key != "stages"},
        **{key: value for key, value in own.items() if value is not None},
        "models": {
            **whole["models"],
            "experts": {**whole["models"]["experts"], **winners},
            "winners": list(winners),
        },
        "finalists": experiment.finalists if is_last else 0,
    }
    if not is_last:  # what is only reported is scored in the finals
        content["evaluators"] = [e for e in whole["evaluators"] if not e.get("report_only")]
    if number > 1:  # recipes and earlier studies are over the first stage's experts
        seeds = whole.get("seeds", {})
        content["seeds"] = {k: v for k, v in seeds.items() if k not in ("recipes", "studies")}
    return parse(Experiment, content, f"stage {number}")


def _stage_of(experiment: Experiment, number: int, folder: StudyFolder) -> Experiment:
    return _stage_experiment(experiment, number, _handed_on(folder, number - 1))


def _require_open(folder: StudyFolder, before: Experiment, after: Experiment) -> None:
    """Refuse budgets that would change nothing, or what is done."""
    for number, (old, new) in enumerate(zip(before.stages, after.stages, strict=True), 1):
        inside = folder.stage(number)
        if inside.winners.is_file() and new.budget != old.budget:
            raise StudyError(
                f"{inside.name} is done and its winners are in use; expected stages."
                f"{number - 1}.budget unchanged, got {new.budget}; a later stage may have more"
            )
    if after.budget != before.budget:
        _require_follower(folder, after)


def _require_follower(folder: StudyFolder, experiment: Experiment) -> None:
    """Refuse a budget of the whole experiment that no stage follows any more."""
    reasons = list(_reasons_not_to_follow(folder, experiment))
    if len(reasons) == len(experiment.stages):
        raise StudyError(
            f"expected a stage that follows 'budget', got none: {', '.join(reasons)}; name the "
            f"stage, e.g. --set stages.{len(reasons) - 1}.budget.trials=N"
        )


def _reasons_not_to_follow(folder: StudyFolder, experiment: Experiment) -> Iterator[str]:
    for number, stage in enumerate(experiment.stages, 1):
        if folder.stage(number).winners.is_file():
            yield f"stage {number} is done"
        elif stage.budget is not None:
            yield f"stage {number} has a budget of its own"


def _hand_on(
    inside: StudyFolder, study: StudyRecord, number: int, winners: Sequence[TrialRecord]
) -> None:
    """Write the winners as checkpoints; done, and never done again, once they are listed."""
    if not winners:
        raise StudyError(
            f"expected a merge of {inside.name} to hand on, got none of {len(study.trials)} trials"
        )
    from evomerge.merging.folder import write_checkpoint

    winners_before = read_experiment(inside).models.winners
    for rank, trial in enumerate(winners):
        recipe = recipe_from_data(trial.recipe, f"trial {trial.number}")
        out = inside.models / _name(number, rank)
        write_checkpoint(recipe, out)
        write_atomically(out / "recipe.yaml", dump_recipe(_beside(recipe, out, winners_before)))
    listed = {_name(number, rank): trial.number for rank, trial in enumerate(winners)}
    write_atomically(inside.winners, json.dumps({"schema_version": 1, "winners": listed}))


def _beside(recipe: Recipe, out: Path, winners: Sequence[str]) -> Recipe:
    """Name winners of earlier stages relative to the folder: a run may be moved as a whole."""
    root = out.resolve()
    paths = {
        name: os.path.relpath(str(reference), root) if name in winners else reference
        for name, reference in recipe.experts.items()
    }
    return replace(recipe, experts=paths)


def _handed_on(folder: StudyFolder, number: int) -> dict[str, str]:
    """Folders of the winners of the first ``number`` stages, by expert name."""
    found = {}
    for stage in map(folder.stage, range(1, number + 1)):
        for name in read_json(stage.winners, lambda content: dict(content["winners"])) or {}:
            found[name] = str((stage.models / name).resolve())
    return found


def _chain_faults(experiment: Experiment, where: str) -> list[str]:
    taken = {_name(i + 1, r) for i, s in enumerate(experiment.stages) for r in range(s.keep)}
    faults = [
        f"{where}: models.experts: {name} is the name of a stage's winner; rename the expert"
        for name in experiment.models.experts
        if name in taken
    ]
    for i, stage in enumerate(experiment.stages[:-1]):
        kind = stage.search_space.get("kind") if isinstance(stage.search_space, dict) else None
        if kind in _DATA_FLOW:
            faults.append(
                f"{where}: stages[{i}].search_space: models of a {kind} space have other "
                "layers than the base, so they cannot be experts; make it the last stage"
            )
    return faults


def _name(number: int, rank: int) -> str:
    return f"stage{number}_{rank}"
