"""A study in its folder: start it, continue it, read it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import optuna

from evomerge.analysis.front import baselines
from evomerge.analysis.winners import best_beside, best_merges
from evomerge.cache import cache_folder, trim_cache
from evomerge.config.assemble import (
    Assembly,
    assemble,
    make_constraints,
    make_sampler,
    resolved_sampler,
)
from evomerge.config.compare import compare_experts, write_comparison
from evomerge.config.experiment import ExecutionConfig, Experiment
from evomerge.config.load import experiment_digest, load_experiment
from evomerge.config.presets import Presets
from evomerge.config.stored import change_experiment, read_experiment, write_experiment
from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Executor, WorkerSpec
from evomerge.study.constraints import unenforced
from evomerge.study.drivers import Drivers
from evomerge.study.finals import run_finals
from evomerge.study.finals_file import read_finals, write_finals
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord, TrialRecord
from evomerge.study.rivals import Rivals
from evomerge.study.search import Budget, Search
from evomerge.study.storage import open_storage, repair_journal
from evomerge.study.timing import Timing, read_timing
from evomerge.study.trials import make_objectives, trial_record, trial_records

__all__ = [
    "Events",
    "change_study",
    "continue_study",
    "create_study",
    "make_executor",
    "on_device",
    "read_experiment",
    "read_study",
    "serve_dashboard",
    "start_study",
    "update_study",
    "worker_count",
]

_STUDY_NAME = "evomerge"
_DIGEST = "experiment"  # study attribute: which experiment the trials belong to


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


def create_study(
    path: Path, presets: Presets, overrides: Sequence[str], folder: StudyFolder
) -> None:
    """Check an experiment and make the folder of its study.

    Args:
        path: Experiment file.
        presets: Where names are looked up.
        overrides: ``KEY=VALUE`` changes.
        folder: Where; stays untouched if the experiment has faults.

    Raises:
        ConfigError: Listing every fault.
        StudyError: Another study is there.
    """
    folder.require_free()
    start_study(load_experiment(path, presets, overrides), str(path), folder)


def start_study(experiment: Experiment, where: str, folder: StudyFolder) -> None:
    """Check a resolved experiment and make the folder of its study; see ``create_study``."""
    assembly = assemble(experiment, where)
    experiment = assembly.experiment
    # A later, larger budget must not change the search.
    experiment = experiment.model_copy(update={"sampler": resolved_sampler(assembly)})
    if experiment.storage is not None:
        open_storage(folder.journal, experiment.storage)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_experiment(folder, experiment)


def change_study(folder: StudyFolder, overrides: Sequence[str]) -> None:
    """Change how much or where a study runs, while no driver runs it.

    Args:
        folder: The study.
        overrides: ``KEY=VALUE`` changes of budget, execution or finalists.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the study is about, or the folder is in use.
    """
    with folder.require().lock():
        _update(folder, change_experiment(folder, overrides))


def update_study(folder: StudyFolder, wanted: Experiment) -> None:
    """Give a study the budget, execution and number of finalists of another experiment.

    Raises:
        StudyError: More trials were asked already than the budget allows, or the folder is in use.
    """
    changes = {key: getattr(wanted, key) for key in ("budget", "execution", "finalists")}
    with folder.require().lock():
        _update(folder, read_experiment(folder).model_copy(update=changes))


def _update(folder: StudyFolder, after: Experiment) -> None:
    before, n_trials = read_experiment(folder), len(read_study(folder).trials)
    if after.budget != before.budget and after.budget.trials < n_trials:
        raise StudyError(
            f"expected a budget of at least the {n_trials} trials that were asked already, got "
            f"{after.budget.trials}"
        )
    if after != before:
        write_experiment(folder, after)


def continue_study(folder: StudyFolder, events: Events) -> StudyRecord:
    """Run a study until its budget is met, then the finals.

    Args:
        folder: A study folder, new or interrupted.
        events: Progress.

    Returns:
        The study as it stands at the end.

    Raises:
        ConfigError: The experiment does not fit together.
        StudyError: The folder is in use, or belongs to another experiment.
    """
    experiment = read_experiment(folder)
    with folder.lock():
        events.began(read_study(folder))
        events.phase("checking the experiment")
        assembly = assemble(experiment, str(folder.experiment))
        study = _open_study(folder, assembly)
        if _is_finished(folder, experiment):
            return read_study(folder)
        trim_cache("experts", "scores", "statistics")
        _measure(assembly, folder, events)
        events.phase("starting workers")
        executor = make_executor(assembly.worker, experiment.execution)
        try:
            _search(study, assembly, folder, executor, events)
            _finals(assembly, folder, executor, events)
        finally:
            executor.close()
    return read_study(folder)


def read_study(folder: StudyFolder) -> StudyRecord:
    """Read a study, running or finished, without changing it.

    Raises:
        StudyError: No study here.
    """
    experiment = read_experiment(folder)
    objectives = make_objectives([(o.task, o.metric, o.direction) for o in experiment.objectives])
    constraints = make_constraints(experiment)
    trials: tuple[TrialRecord, ...] = ()
    if experiment.storage is not None or folder.journal.is_file():
        _quiet_optuna()
        storage = open_storage(folder.journal, experiment.storage)
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        name = _study_name(folder, experiment)
        if name in names:
            found = optuna.load_study(study_name=name, storage=storage)
            trials = trial_records(found, constraints, experiment.models.located_winners())
    finals, n_trials = read_finals(folder.finals), experiment.budget.trials
    return StudyRecord(
        name=folder.name,
        objectives=objectives,
        trials=trials,
        finals=finals.records,
        n_trials=n_trials,
        constraints=tuple(constraint.name for constraint in constraints),
        unenforced=unenforced(constraints, trials, n_trials, finals.records),
        report_only=finals.report_only,
    )


def make_executor(worker: WorkerSpec, config: ExecutionConfig) -> Executor:
    """Start the workers of an experiment.

    Args:
        worker: What each loads.
        config: How many, and where.
    """
    worker = on_device(worker, config)
    if config.executor == "inline":
        from evomerge.execution.inline import InlineExecutor

        return InlineExecutor(worker)
    from evomerge.execution.ray import RayExecutor

    return RayExecutor(
        worker,
        worker_count(config),
        gpus_per_worker=0 if worker.device == "cpu" else config.gpus_per_worker,
        address=config.ray_address,
    )


def on_device(worker: WorkerSpec, config: ExecutionConfig) -> WorkerSpec:
    """Resolve where workers run: on GPUs if there are any and the experiment wants them."""
    import torch

    if config.executor == "inline":
        return dataclasses.replace(worker, device="cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.device_count() or config.gpus_per_worker == 0:
        return dataclasses.replace(worker, device="cpu")
    share = min(config.gpus_per_worker, 1.0)
    return dataclasses.replace(worker, device="cuda", device_share=share)


def worker_count(config: ExecutionConfig) -> int:
    """Resolve ``workers: auto``: as many as the GPUs hold, else one per core."""
    import torch

    if config.executor == "inline":
        return 1
    if config.workers != "auto":
        return config.workers
    n_gpus = torch.cuda.device_count()
    if n_gpus and config.gpus_per_worker > 0:
        return max(1, int(n_gpus / config.gpus_per_worker))
    return len(os.sched_getaffinity(0))


def serve_dashboard(folder: StudyFolder, port: int, serving: Callable[[str], None]) -> None:
    """Serve optuna-dashboard on a study until interrupted.

    Args:
        folder: Of the study.
        port: On this machine.
        serving: Called with the address when all is ready.

    Raises:
        StudyError: No study here, or optuna-dashboard is not installed.
    """
    experiment = read_experiment(folder)
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise StudyError(
            "optuna-dashboard is not installed; pip install 'evomerge[dashboard]'"
        ) from None
    storage = open_storage(folder.journal, experiment.storage)
    serving(f"http://127.0.0.1:{port}")
    run_server(storage, host="127.0.0.1", port=port)


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
    if not folder.comparison.is_file():
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
        rivals=_rivals(assembly),
        drivers=Drivers(study, None if is_alone else str(folder.root.resolve())),
        winners=assembly.experiment.models.located_winners(),
        on_told=lambda trial: events.told(trial_record(trial)),
    )
    search.seed(assembly.seeds)
    events.phase("searching")
    search.run()


def _rivals(assembly: Assembly) -> Rivals | None:
    rules = assembly.experiment.race
    return None if rules is None else Rivals(assembly.objectives, rules)


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


def _open_study(folder: StudyFolder, assembly: Assembly) -> optuna.Study:
    _quiet_optuna()
    experiment = assembly.experiment
    if experiment.storage is None:
        repair_journal(folder.journal)
    study = optuna.create_study(
        storage=open_storage(folder.journal, experiment.storage),
        study_name=_study_name(folder, experiment),
        directions=[o.direction for o in assembly.objectives],
        sampler=make_sampler(assembly, ItemStore(folder.items)),
        load_if_exists=True,
    )
    digest = experiment_digest(experiment)
    if study.user_attrs.get(_DIGEST, digest) != digest:
        raise StudyError(
            f"the study in {folder.root} was started with another experiment than its "
            "experiment.yaml says now; restore that file"
        )
    study.set_user_attr(_DIGEST, digest)
    return study


def _study_name(folder: StudyFolder, experiment: Experiment) -> str:
    """A database may hold many studies, a journal file just one."""
    return _STUDY_NAME if experiment.storage is None else folder.root.resolve().name


def _is_finished(folder: StudyFolder, experiment: Experiment) -> bool:
    study, budget = read_study(folder), experiment.budget
    is_running = any(t.state == "running" for t in study.trials)
    out_of_trials = len(study.trials) >= budget.trials
    limit = budget.wall_clock
    out_of_time = limit is not None and read_timing(folder.timing)["elapsed"] >= limit
    has_finals = bool(study.finals) or experiment.finalists == 0
    return (out_of_trials or out_of_time) and not is_running and has_finals


def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
