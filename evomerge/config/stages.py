"""Experiments that chain search spaces: each stage is a study, its winners are experts of the next.

The folder of such an experiment holds ``stages/1``, ``stages/2`` …, ordinary study folders. A stage
that is done hands on plain checkpoints, named ``stage1_0``, ``stage1_1`` …, in its ``models``.
An experiment of one space is a chain of one study in the folder itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from evomerge.analysis.winners import stage_winners
from evomerge.config.assemble import Assembly, assemble
from evomerge.config.experiment import Experiment
from evomerge.config.load import dump_experiment, experiment_digest, load_experiment
from evomerge.config.overrides import apply_overrides
from evomerge.config.presets import Presets
from evomerge.config.runs import (
    Events,
    change_study,
    continue_study,
    read_experiment,
    start_study,
    update_study,
)
from evomerge.errors import ConfigError, StudyError
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.files import dump_recipe, recipe_from_data
from evomerge.schema import parse, read_yaml
from evomerge.study.folder import StudyFolder, write_atomically
from evomerge.study.records import StudyRecord, TrialRecord

__all__ = [
    "assemble_stages",
    "change_run",
    "continue_run",
    "create_run",
    "latest_study",
    "stage_studies",
]

_DATA_FLOW = ("dataflow", "hybrid")  # kinds of space whose models have other layers than the base


def create_run(path: Path, presets: Presets, overrides: Sequence[str], folder: StudyFolder) -> None:
    """Check an experiment of one or several stages and make its folder.

    Args:
        path: Experiment file.
        presets: Where names are looked up.
        overrides: ``KEY=VALUE`` changes.
        folder: Where; stays untouched if the experiment has faults.

    Raises:
        ConfigError: Listing every fault of every stage.
        StudyError: Another study is there.
    """
    folder.require_free()
    experiment = load_experiment(path, presets, overrides)
    if not experiment.stages:
        start_study(experiment, str(path), folder)
        return
    assemble_stages(experiment, str(path))
    folder.root.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.experiment, dump_experiment(experiment))


def change_run(folder: StudyFolder, overrides: Sequence[str]) -> None:
    """Change how much or where a run goes on; a stage whose winners are in use stays as it is.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the run is about, or a stage that is done.
    """
    before = read_experiment(folder)
    if not before.stages:
        change_study(folder, overrides)
        return
    where = str(folder.experiment)
    after = parse(Experiment, apply_overrides(read_yaml(folder.experiment), overrides), where)
    if experiment_digest(after) != experiment_digest(before):
        raise StudyError(
            "expected overrides of budgets, execution or finalists, which may change on resume, "
            f"got {', '.join(overrides)}; start a new study for another experiment"
        )
    for number, inside in enumerate(_begun(folder, after), 1):
        wanted = _stage_experiment(after, number, _handed_on(folder, number - 1))
        _update_stage(inside, wanted)
    if after != before:
        write_atomically(folder.experiment, dump_experiment(after))


def continue_run(folder: StudyFolder, events: Events) -> StudyRecord:
    """Run every stage that is not done, from wherever the last driver stopped.

    Returns:
        The study of the last stage.

    Raises:
        ConfigError: The experiment does not fit together.
        StudyError: The folder is in use, or a stage found no merge to hand on.
    """
    experiment = read_experiment(folder)
    if not experiment.stages:
        return continue_study(folder, events)
    with folder.lock():
        for number, stage in enumerate(experiment.stages, 1):
            inside = folder.stage(number)
            wanted = _stage_experiment(experiment, number, _handed_on(folder, number - 1))
            if inside.experiment.is_file():
                _update_stage(inside, wanted)
            else:
                start_study(wanted, str(folder.experiment), inside)
            study = continue_study(inside, events)
            if number < len(experiment.stages) and not inside.winners.is_file():
                events.phase(f"writing the winners of stage {number}")
                _hand_on(inside, study, number, stage_winners(study, stage.keep, stage.keep_by))
    return study


def assemble_stages(experiment: Experiment, where: str) -> tuple[Assembly, ...]:
    """Build the parts of every stage, the base standing in for winners that do not exist yet.

    Raises:
        ConfigError: Listing every fault of every stage, one line each.
    """
    if not experiment.stages:
        return (assemble(experiment, where),)
    found: list[Assembly] = []
    faults = list(_chain_faults(experiment, where))
    winners: dict[str, str] = {}
    for i, stage in enumerate(experiment.stages):
        try:
            found.append(assemble(_stage_experiment(experiment, i + 1, winners), where))
        except ConfigError as err:
            own, of_stage = f"{where}: search_space", f"{where}: stages[{i}].search_space"
            faults += [fault.replace(own, of_stage, 1) for fault in err.faults]
        winners |= {_name(i + 1, rank): experiment.models.base for rank in range(stage.keep)}
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
    return tuple(found)


def stage_studies(folder: StudyFolder) -> tuple[StudyFolder, ...]:
    """List the studies of a run that have begun: of its stages, or just the folder itself.

    Raises:
        StudyError: No study here.
    """
    return tuple(_begun(folder, read_experiment(folder))) or (folder,)


def latest_study(folder: StudyFolder) -> StudyFolder:
    """Find the study that a run's results are read from: that of the last stage that has begun."""
    return stage_studies(folder)[-1]


def _begun(folder: StudyFolder, experiment: Experiment) -> list[StudyFolder]:
    inside = [folder.stage(number + 1) for number in range(len(experiment.stages))]
    return [one for one in inside if one.experiment.is_file()]


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
        "models": {**whole["models"], "experts": {**whole["models"]["experts"], **winners}},
        "finalists": experiment.finalists if is_last else 0,
    }
    if not is_last:  # what is only reported is scored in the finals
        content["evaluators"] = [e for e in whole["evaluators"] if not e.get("report_only")]
    if number > 1:  # recipes and earlier studies are over the first stage's experts
        seeds = whole.get("seeds", {})
        content["seeds"] = {k: v for k, v in seeds.items() if k not in ("recipes", "studies")}
    return parse(Experiment, content, f"stage {number}")


def _update_stage(inside: StudyFolder, wanted: Experiment) -> None:
    """Carry changes of budget and execution into a stage that has begun."""
    before = read_experiment(inside)
    after = before.model_copy(
        update={key: getattr(wanted, key) for key in ("budget", "execution", "finalists")}
    )
    if inside.winners.is_file() and after.budget != before.budget:
        raise StudyError(
            f"{inside.name} is done and its winners are in use; expected its budget unchanged, got "
            f"{after.budget.trials} trials instead of {before.budget.trials}"
        )
    update_study(inside, before, after)


def _hand_on(
    inside: StudyFolder, study: StudyRecord, number: int, winners: Sequence[TrialRecord]
) -> None:
    """Write the winners as checkpoints; done, and never done again, once they are listed."""
    if not winners:
        raise StudyError(
            f"expected a merge of {inside.name} to hand on, got none of {len(study.trials)} trials"
        )
    for rank, trial in enumerate(winners):
        recipe = recipe_from_data(trial.recipe, f"trial {trial.number}")
        out = inside.models / _name(number, rank)
        write_checkpoint(recipe, out)
        write_atomically(out / "recipe.yaml", dump_recipe(recipe))
    listed = {_name(number, rank): trial.number for rank, trial in enumerate(winners)}
    write_atomically(inside.winners, json.dumps({"schema_version": 1, "winners": listed}))


def _handed_on(folder: StudyFolder, number: int) -> dict[str, str]:
    """Folders of the winners of the first ``number`` stages, by expert name."""
    found = {}
    for stage in map(folder.stage, range(1, number + 1)):
        for name in json.loads(stage.winners.read_text())["winners"]:
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
