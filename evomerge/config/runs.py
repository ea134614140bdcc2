"""A study in its folder: start it, continue it, read it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from evomerge.analysis.front import complete, front, is_single_model
from evomerge.config.assemble import Assembly, assemble, make_sampler, sampler_choice
from evomerge.config.experiment import ExecutionConfig, Experiment, SamplerConfig
from evomerge.config.load import dump_experiment, experiment_digest, load_experiment
from evomerge.config.overrides import apply_overrides
from evomerge.config.presets import Presets
from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.execution.protocol import Executor, WorkerSpec
from evomerge.schema import parse, read_yaml
from evomerge.space.baselines import baselines
from evomerge.study.finals import read_finals, run_finals, write_finals
from evomerge.study.folder import StudyFolder, write_atomically
from evomerge.study.records import StudyRecord, TrialRecord, mean_value
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
    "read_experiment",
    "read_study",
    "serve_dashboard",
    "worker_count",
]

_STUDY_NAME = "evomerge"
_DIGEST = "experiment"  # study attribute: which experiment the trials belong to


@dataclass(frozen=True)
class Events:
    """Callbacks that tell a person how the run goes.

    Attributes:
        phase: Called with what is being done now.
        told: Called with each finished trial.
    """

    phase: Callable[[str], None] = lambda text: None
    told: Callable[[TrialRecord], None] = lambda trial: None


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
    if folder.experiment.is_file():
        raise StudyError(
            f"{folder.root} holds a study already; 'evomerge resume {folder.root}' continues it, "
            "or choose another folder with --dir"
        )
    experiment = load_experiment(path, presets, overrides)
    assembly = assemble(experiment, str(path))
    if experiment.sampler.name == "auto":  # a later, larger budget must not change the sampler
        sampler, _ = sampler_choice(assembly)
        experiment = experiment.model_copy(update={"sampler": SamplerConfig(name=sampler)})
    if experiment.storage is not None:
        open_storage(folder.journal, experiment.storage)
    folder.root.mkdir(parents=True, exist_ok=True)
    write_atomically(folder.experiment, dump_experiment(experiment))


def change_study(folder: StudyFolder, overrides: Sequence[str]) -> None:
    """Change how much or where a study runs.

    Args:
        folder: The study.
        overrides: ``KEY=VALUE`` changes of budget, execution or finalists.

    Raises:
        ConfigError: An override is wrong.
        StudyError: An override would change what the study is about.
    """
    before = read_experiment(folder)
    where = str(folder.experiment)
    after = parse(Experiment, apply_overrides(read_yaml(folder.experiment), overrides), where)
    n_trials = len(read_study(folder).trials)
    if after.budget != before.budget and after.budget.trials < n_trials:
        raise StudyError(
            f"expected a budget of at least the {n_trials} trials that were asked already, got "
            f"{after.budget.trials}"
        )
    if experiment_digest(after) != experiment_digest(before):
        raise StudyError(
            "expected overrides of budget, execution or finalists, which may change on resume, got "
            f"{', '.join(overrides)}; start a new study for another experiment"
        )
    if after != before:
        write_atomically(folder.experiment, dump_experiment(after))


def read_experiment(folder: StudyFolder) -> Experiment:
    """Read the resolved experiment of a study."""
    path = folder.require().experiment
    return parse(Experiment, read_yaml(path), str(path))


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
        events.phase("checking the experiment")
        assembly = assemble(experiment, str(folder.experiment))
        study = _open_study(folder, assembly)
        if _is_finished(folder, experiment):
            return read_study(folder)
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
    trials: tuple[TrialRecord, ...] = ()
    if experiment.storage is not None or folder.journal.is_file():
        _quiet_optuna()
        storage = open_storage(folder.journal, experiment.storage)
        names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
        name = _study_name(folder, experiment)
        if name in names:
            trials = trial_records(optuna.load_study(study_name=name, storage=storage))
    return StudyRecord(
        name=folder.root.name,
        objectives=objectives,
        trials=trials,
        finals=read_finals(folder.finals),
        n_trials=experiment.budget.trials,
    )


def make_executor(worker: WorkerSpec, config: ExecutionConfig) -> Executor:
    """Start the workers of an experiment.

    Args:
        worker: What each loads.
        config: How many, and where.
    """
    import torch

    if config.executor == "inline":
        from evomerge.execution.inline import InlineExecutor

        device = "cuda" if torch.cuda.is_available() else "cpu"
        return InlineExecutor(dataclasses.replace(worker, device=device))
    from evomerge.execution.ray import RayExecutor

    n_gpus = torch.cuda.device_count()
    return RayExecutor(
        dataclasses.replace(worker, device="cuda" if n_gpus else "cpu"),
        worker_count(config),
        gpus_per_worker=config.gpus_per_worker if n_gpus else 0,
        address=config.ray_address,
    )


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


def serve_dashboard(folder: StudyFolder, port: int) -> None:
    """Serve optuna-dashboard on a study until interrupted.

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
    run_server(open_storage(folder.journal, experiment.storage), host="127.0.0.1", port=port)


def _search(
    study: optuna.Study,
    assembly: Assembly,
    folder: StudyFolder,
    executor: Executor,
    events: Events,
) -> None:
    budget = assembly.experiment.budget
    folder.finals.unlink(missing_ok=True)  # of an earlier, smaller budget
    search = Search(
        study,
        assembly.space,
        assembly.objectives,
        executor,
        budget=Budget(budget.trials, budget.wall_clock),
        items=ItemStore(folder.items),
        timing=Timing(folder.timing),
        rivals=_rivals(assembly),
        driver=None if assembly.experiment.storage is None else str(folder.root.resolve()),
        on_told=lambda trial: events.told(trial_record(trial)),
    )
    search.seed(baselines(assembly.space, assembly.models))
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
    found = run_finals(
        finalists=_best_of_front(study, n_finalists),
        baselines=[t for t in study.trials if t.origin != "search" and t.state == "complete"],
        objectives=study.objectives,
        executor=executor,
        items=ItemStore(folder.items),
    )
    write_finals(folder.finals, found)


def _best_of_front(study: StudyRecord, n: int) -> list[TrialRecord]:
    """Choose n merges of the front: the best means first, since the mean decides the finals.

    Where no merge is on the front, the best merges beside it.
    """
    merges = [t for t in complete(study) if not is_single_model(t.origin)]
    on_front = [t for t in front(study) if t in merges]
    by_mean = sorted(on_front or merges, key=lambda t: -mean_value(t.values, study.objectives))
    return by_mean[:n]


def _open_study(folder: StudyFolder, assembly: Assembly) -> optuna.Study:
    _quiet_optuna()
    experiment = assembly.experiment
    if experiment.storage is None:
        repair_journal(folder.journal)
    study = optuna.create_study(
        storage=open_storage(folder.journal, experiment.storage),
        study_name=_study_name(folder, experiment),
        directions=[o.direction for o in assembly.objectives],
        sampler=make_sampler(assembly),
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
