"""A study in its folder: start it, change how far it goes, continue it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import optuna

from evomerge.analysis.front import baselines
from evomerge.analysis.winners import best_beside, best_merges
from evomerge.cache import cache_folder, trim_cache
from evomerge.config.assemble import Assembly, assemble
from evomerge.config.compare import compare_experts, read_comparison, write_comparison
from evomerge.config.experiment import Experiment
from evomerge.config.inputs import input_digests, model_digests, require_same
from evomerge.config.optuna_study import keep_inputs, open_study, store_name, stored_inputs
from evomerge.config.reading import read_study
from evomerge.config.sampling import make_sampler, resolved_sampler
from evomerge.config.stored import change_experiment, read_experiment, write_experiment
from evomerge.config.wholeness import require_items
from evomerge.config.workers import on_device, start_executor
from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Executor
from evomerge.study.drivers import Drivers
from evomerge.study.finals import run_finals
from evomerge.study.finals_file import write_finals
from evomerge.study.folder import StudyFolder
from evomerge.study.identity import driver_id, identify
from evomerge.study.records import StudyRecord, TrialRecord
from evomerge.study.rivals import Rivals
from evomerge.study.search import Budget, Search
from evomerge.study.storage import open_storage
from evomerge.study.timing import Timing, read_timing
from evomerge.study.trials import trial_record

__all__ = [
    "Events",
    "change_study",
    "checked_study",
    "continue_study",
    "require_same_models",
    "start_study",
    "update_study",
]


@dataclass(frozen=True)
class Events:
    """Callbacks that tell a person how the run goes.

    Attributes:
        phase: Called with what is being done now.
        part: Called during a long phase with what is counted, how many are done, and of how many.
        told: Called with each finished trial.
        began: Called with a study, as earlier drivers left it, before it is continued.
    """

    phase: Callable[[str], None] = lambda text: None
    part: Callable[[str, int, int], None] = lambda text, done, total: None
    told: Callable[[TrialRecord], None] = lambda trial: None
    began: Callable[[StudyRecord], None] = lambda study: None


def checked_study(experiment: Experiment, where: str, folder: StudyFolder) -> Experiment:
    """Check a resolved experiment before the folder of its study is made.

    Args:
        experiment: As ``load_experiment`` returns it.
        where: Named in faults.
        folder: Where the study will be.

    Returns:
        The experiment as the study keeps it: a later, larger budget must not change its sampler.

    Raises:
        ConfigError: Listing every fault.
        StudyError: The database cannot be opened.
    """
    assembly = assemble(experiment, where)
    if experiment.storage is not None:
        open_storage(folder.journal, experiment.storage)
    sampler = resolved_sampler(assembly.experiment, assembly.space)
    return assembly.experiment.model_copy(update={"sampler": sampler})


def start_study(experiment: Experiment, where: str, folder: StudyFolder) -> None:
    """Check a resolved experiment and make the folder of its study; see ``checked_study``."""
    experiment = checked_study(experiment, where, folder)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_experiment(folder, experiment)


def change_study(
    folder: StudyFolder, overrides: Sequence[str], *, accept_changes: bool = False
) -> None:
    """Change how much or where a study runs, while no driver runs it.

    Args:
        folder: The study.
        overrides: ``KEY=VALUE`` changes of budget, execution, finalists, or where models are.
        accept_changes: Whether models may be others than those of earlier trials.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the study is about, or the folder is in use.
    """
    with folder.require().lock():
        after = change_experiment(folder, overrides)
        require_same_models(folder, after, accept_changes=accept_changes)
        _update(folder, after)


def update_study(folder: StudyFolder, wanted: Experiment) -> None:
    """Give a study the budget, execution, finalists and places of models of another experiment.

    Raises:
        StudyError: More trials were asked already than the budget allows, or the folder is in use.
    """
    keys = ("budget", "execution", "finalists", "models")
    changes = {key: getattr(wanted, key) for key in keys}
    with folder.require().lock():
        _update(folder, read_experiment(folder).model_copy(update=changes))


def require_same_models(folder: StudyFolder, after: Experiment, *, accept_changes: bool) -> None:
    """Refuse other models than those of a study's trials, where an experiment moves them.

    Raises:
        CheckpointError: A model cannot be opened.
        StudyError: They are others; or the study keeps nothing that would tell.
    """
    before = read_experiment(folder)
    old, new = before.models.located(), after.models.located()
    if accept_changes or all(old[name] == new[name] for name in new):
        return
    kept = stored_inputs(folder, before)
    if not kept and read_study(folder).trials:
        raise StudyError(
            f"expected models where they were: the study in {folder.root} keeps no fingerprints "
            "that would tell whether they are the same; 'evomerge resume' without other places "
            "stores them, --accept-changes goes on without"
        )
    require_same(kept, model_digests(after), folder.root)


def _update(folder: StudyFolder, after: Experiment) -> None:
    before, n_trials = read_experiment(folder), len(read_study(folder).trials)
    if after.budget != before.budget and after.budget.trials < n_trials:
        raise StudyError(
            f"expected a budget of at least the {n_trials} trials that were asked already, got "
            f"{after.budget.trials}"
        )
    if after != before:
        write_experiment(folder, after)


def continue_study(
    folder: StudyFolder,
    events: Events,
    *,
    accept_changes: bool = False,
    earlier: Mapping[str, str] = {},
) -> StudyRecord:
    """Run a study until its budget is met, then the finals.

    Args:
        folder: A study folder, new or interrupted.
        events: Progress.
        accept_changes: Whether models and items may be others than those of earlier trials.
        earlier: What those of earlier stages were (``stored_inputs``).

    Returns:
        The study as it stands at the end.

    Raises:
        ConfigError: The experiment does not fit together.
        StudyError: The folder is in use, or belongs to another experiment; or models, tokenizer or
            items are not those of earlier trials.
    """
    with folder.require().lock():
        experiment, before = read_experiment(folder), read_study(folder)
        store = store_name(folder, experiment)
        require_items(folder, store, before.trials, driver_id(folder))
        events.began(before)
        events.phase("checking the experiment")
        assembly = assemble(experiment, str(folder.experiment))
        sampler = make_sampler(assembly.experiment, assembly.space, ItemStore(folder.items))
        study = open_study(folder, assembly.experiment, sampler)
        if _is_finished(folder, experiment):
            if folder.comparison.is_file() and read_comparison(folder.comparison) is None:
                _measure(assembly, folder, events)
            return read_study(folder)
        inputs, kept = input_digests(assembly), stored_inputs(folder, experiment)
        if not accept_changes:
            require_same({**earlier, **kept}, inputs, folder.root)
        keep_inputs(study, {**kept, **inputs})
        trim_cache("experts", "scores", "statistics")
        _measure(assembly, folder, events)
        events.phase("starting workers")
        executor = start_executor(experiment.execution)
        try:
            executor.load(on_device(assembly.worker, experiment.execution))
            _search(study, assembly, folder, executor, events)
            _finals(assembly, folder, executor, events)
        finally:
            executor.close()
    return read_study(folder)


def _measure(assembly: Assembly, folder: StudyFolder, events: Events) -> None:
    """Measure the models before the workers start, which then find all in the cache on disk.

    Without that cache, or on another machine, each worker measures what it needs when it needs it.
    """
    from evomerge.merging.measuring import measure_models
    from evomerge.merging.sources import Sources

    is_remote = assembly.experiment.execution.ray_address != "local"
    if cache_folder("statistics") is None or is_remote:
        return
    events.phase("measuring the models")
    models = assembly.models
    sources = Sources(models.base, models.experts, shared=cache_folder("experts"))
    counted = partial(events.part, "statistics of the models")
    measure_models(sources, assembly.space.statistics, counted)
    if read_comparison(folder.comparison) is None:
        counted = partial(events.part, "comparing the experts")
        write_comparison(folder.comparison, compare_experts(sources, counted))


def _search(
    study: optuna.Study,
    assembly: Assembly,
    folder: StudyFolder,
    executor: Executor,
    events: Events,
) -> None:
    budget, is_alone = assembly.experiment.budget, assembly.experiment.storage is None
    rules, seed = assembly.experiment.race, assembly.experiment.seed
    folder.finals.unlink(missing_ok=True)  # of an earlier, smaller budget
    search = Search(
        study,
        assembly.space,
        assembly.objectives,
        executor,
        budget=Budget(budget.trials, budget.wall_clock),
        items=ItemStore(folder.items),
        timing=Timing(folder.timing),
        constraints=assembly.constraints,
        rivals=None if rules is None else Rivals(assembly.objectives, rules, seed),
        drivers=Drivers(study, None if is_alone else identify(folder)),
        models=assembly.experiment.models.located(),
        on_told=lambda trial: events.told(trial_record(trial)),
    )
    search.seed(assembly.seeds)
    events.phase("searching")
    search.run()


def _finals(assembly: Assembly, folder: StudyFolder, executor: Executor, events: Events) -> None:
    n_finalists = assembly.experiment.finalists
    study = read_study(folder)
    if n_finalists == 0 or not any(t.state == "complete" for t in study.trials):
        return
    events.phase("held-out finals")
    finalists = best_merges(study, n_finalists)
    beside = best_beside(study, finalists) if assembly.constraints else []
    found = run_finals(
        finalists=finalists,
        reserves=beside[: n_finalists - len(finalists)],
        baselines=baselines(study),
        objectives=study.objectives,
        executor=executor,
        items=ItemStore(folder.items),
        constraints=assembly.constraints,
        report_only=assembly.report_only,
        on_scored=partial(events.part, "scoring held-out items"),
    )
    write_finals(folder.finals, found, study.constraints)


def _is_finished(folder: StudyFolder, experiment: Experiment) -> bool:
    study, budget = read_study(folder), experiment.budget
    is_running = any(t.state == "running" for t in study.trials)
    out_of_trials = len(study.trials) >= budget.trials
    limit = budget.wall_clock
    out_of_time = limit is not None and read_timing(folder.timing)["elapsed"] >= limit
    has_finals = bool(study.finals) or experiment.finalists == 0
    return (out_of_trials or out_of_time) and not is_running and has_finals
