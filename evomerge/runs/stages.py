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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.analysis.winners import stage_winners
from evomerge.config.experiment import Experiment
from evomerge.config.load import Draft, draft_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, Fault, KeyPath, StudyError, changed, collected
from evomerge.plain_yaml import placed_in
from evomerge.recipe.files import RECIPE_FILE, dump_recipe, stored_recipe
from evomerge.recipe.recipe import Recipe
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.observed import with_prompts
from evomerge.runs.optuna_study import find_study, stored_inputs
from evomerge.runs.reading import begun_stages, read_study
from evomerge.runs.run import (
    change_study,
    continue_study,
    require_same_models,
    settled,
    start_study,
    update_study,
)
from evomerge.runs.stored import change_experiment, read_experiment, write_experiment
from evomerge.schema import NO_GAPS, Gaps, parse
from evomerge.study.folder import StudyFolder, write_atomically
from evomerge.study.json_files import read_json
from evomerge.study.records import StudyRecord, TrialRecord

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue

__all__ = [
    "change_run",
    "continue_run",
    "load_draft",
    "load_stages",
    "start_draft",
    "start_run",
]

_OWN = {"search_space", "sampler", "budget"}  # what a stage may have for itself
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
    return start_draft(draft_experiment(path, presets, overrides), folder, events)


def start_draft(draft: Draft, folder: StudyFolder, events: Events) -> StudyRecord:
    """Make the folder of an experiment that has been read, and run it; see ``start_run``."""
    if not _is_unbegun(folder):
        folder.require_free()
    experiment = draft.experiment
    if experiment is not None and experiment.stages and _sets_budget(draft):
        _require_follower(folder, experiment)
    events.faulty(draft.faults)
    events.phase("checking the experiment")
    with _made(draft, folder, events) as loaded:
        return continue_run(folder, events, loaded=loaded)


def _sets_budget(draft: Draft) -> bool:
    """Tell whether an override changes the budget of the whole experiment."""
    return any(path[:1] == ("budget",) and isinstance(by, str) for path, by in draft.parts.items())


@contextmanager
def _made(draft: Draft, folder: StudyFolder, events: Events) -> Iterator[Loaded]:
    loaded, *_ = load_draft(draft)
    experiment = draft.complete()
    if not experiment.stages:
        loaded = settled(loaded, folder, events)
        experiment = loaded.experiment
    with folder.lock():
        if _is_unbegun(folder):
            for file in (folder.experiment, folder.journal):
                file.unlink(missing_ok=True)
        folder.require_free()
        if not experiment.stages:
            experiment = with_prompts(loaded, folder)
        write_experiment(folder, experiment)
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
                earlier |= stored_inputs(find_study(inside, read_experiment(inside)))
                continue
            wanted = _stage_of(experiment, number, folder)
            if inside.experiment.is_file():
                update_study(inside, wanted)
            else:
                tasks = None if loaded is None else loaded.tasks
                with placed_in(folder.experiment):
                    loaded = settled(Loaded.of(wanted, tasks), inside, events)
                start_study(loaded, inside)
            study = continue_study(
                inside,
                events,
                accept_changes=accept_changes,
                earlier=earlier,
                loaded=loaded,
            )
            earlier |= stored_inputs(find_study(inside, wanted))
            if number < len(experiment.stages):
                events.phase(f"writing the winners of stage {number}")
                _hand_on(inside, study, number, stage_winners(study, stage.keep, stage.keep_by))
    return study  # the last stage has no winners: it is always continued


def load_draft(draft: Draft) -> tuple[Loaded, ...]:
    """Build the parts of every stage of an experiment as it is written; see ``load_stages``.

    Raises:
        ConfigError: Every fault of the file, of every part and of every stage, with its place.
    """
    found: tuple[Loaded, ...] = ()
    faults: list[Fault] = []
    if draft.experiment is not None:
        with collected(faults):
            found = load_stages(draft.experiment, draft.gaps)
    draft.complete(*faults)
    return found


def load_stages(experiment: Experiment, gaps: Gaps = NO_GAPS) -> tuple[Loaded, ...]:
    """Build the parts of every stage, the base standing in for winners that do not exist yet.

    Args:
        experiment: Resolved.
        gaps: See ``Loaded.of``.

    Raises:
        ConfigError: Every fault of every stage, by the keys of the experiment.
    """
    if not experiment.stages:
        return (Loaded.of(experiment, gaps=gaps),)
    found: list[Loaded] = []
    faults = list(_chain_faults(experiment))
    winners: dict[str, str] = {}
    tasks: TaskCatalogue | None = None
    for i, stage in enumerate(experiment.stages):
        with collected(faults), changed(partial(_of_stage, experiment, i)):
            one = _stage_experiment(experiment, i + 1, winners)
            found.append(Loaded.of(one, tasks, gaps))
            tasks = found[-1].tasks
        winners |= {_name(i + 1, rank): experiment.models.base for rank in range(stage.keep)}
    if faults:
        raise ConfigError(*faults)
    return tuple(found)


def _of_stage(experiment: Experiment, i: int, fault: Fault) -> Fault:
    """Turn the path in the experiment of a stage into that in the whole one."""
    key = str(fault.path[0]) if fault.path else ""
    if key in _OWN and getattr(experiment.stages[i], key) is not None:
        return fault.under("stages", i)
    left_out = [] if i + 1 == len(experiment.stages) else _reported(experiment)
    return replace(fault, path=Gaps(frozenset(left_out)).written(fault.path))


def _reported(experiment: Experiment) -> list[KeyPath]:
    """Find the evaluators that only the last stage has."""
    evaluators = experiment.model_dump(include={"evaluators"})["evaluators"]
    return [("evaluators", i) for i, e in enumerate(evaluators) if e["report_only"]]


def _stage_experiment(
    experiment: Experiment, number: int, winners: Mapping[str, str]
) -> Experiment:
    """The experiment of one stage by itself; only the last stage has held-out finals."""
    stage, is_last = experiment.stages[number - 1], number == len(experiment.stages)
    whole = experiment.model_dump(exclude_unset=True, mode="json")
    own = stage.model_dump(include=_OWN, mode="json")
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
    return parse(Experiment, content)


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
        recipe = stored_recipe(trial.recipe, trial.number)
        out = inside.models / _name(number, rank)
        write_checkpoint(recipe, out)
        write_atomically(out / RECIPE_FILE, dump_recipe(_beside(recipe, out, winners_before)))
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


def _chain_faults(experiment: Experiment) -> Iterator[Fault]:
    taken = {_name(i + 1, r) for i, s in enumerate(experiment.stages) for r in range(s.keep)}
    for name in taken & experiment.models.experts.keys():
        text = f"{name} is the name of a stage's winner"
        yield Fault(("models", "experts", name), text, "rename the expert")
    for i, stage in enumerate(experiment.stages[:-1]):
        kind = stage.search_space.get("kind") if isinstance(stage.search_space, dict) else None
        if kind in _DATA_FLOW:
            text = (
                f"models of a {kind} space have other layers than the base, so they cannot be "
                "experts"
            )
            yield Fault(("stages", i, "search_space"), text, "make it the last stage")
        if kind == "ensemble":
            text = "ensembles are no single models, so they cannot be experts"
            yield Fault(("stages", i, "search_space"), text, "make it the last stage")


def _name(number: int, rank: int) -> str:
    return f"stage{number}_{rank}"
