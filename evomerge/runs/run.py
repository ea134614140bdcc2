"""A study in its folder: start it, change how far it goes, continue it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import optuna

from evomerge.analysis.front import baselines
from evomerge.analysis.silence import silences
from evomerge.analysis.winners import finalists
from evomerge.cache import cache_folder, trim_cache
from evomerge.config.experiment import Experiment
from evomerge.errors import StudyError
from evomerge.evaluation.store import ItemStore
from evomerge.execution.happenings import Happening, Hear
from evomerge.execution.interrupts import stops_counted
from evomerge.execution.protocol import Executor
from evomerge.origins import is_single_model
from evomerge.plain_yaml import placed_in
from evomerge.runs.compare import compare_experts, read_comparison, write_comparison
from evomerge.runs.events import Events
from evomerge.runs.inputs import input_digests, model_digests, require_same, with_contents
from evomerge.runs.loaded import Loaded
from evomerge.runs.observed import with_prompts
from evomerge.runs.optuna_study import (
    find_study,
    keep_inputs,
    ledger_of,
    open_study,
    store_name,
    stored_inputs,
)
from evomerge.runs.reading import is_finished, read_study
from evomerge.runs.sampling import make_sampler, sampler_choice, with_settled_sampler
from evomerge.runs.stored import change_experiment, read_experiment, write_experiment
from evomerge.runs.wholeness import require_items
from evomerge.runs.workers import is_on_cluster, on_device, start_executor
from evomerge.study.drivers import Drivers
from evomerge.study.finals import run_finals
from evomerge.study.finals_file import write_finals
from evomerge.study.folder import StudyFolder
from evomerge.study.identity import driver_id, identify
from evomerge.study.log import StudyLog
from evomerge.study.records import StudyRecord, TrialRecord
from evomerge.study.rivals import Rivals
from evomerge.study.search import Budget, Host, Search
from evomerge.study.storage import open_storage
from evomerge.study.timing import Timing, utilisation

_STOPPING = "stopping: trials that run are finished; a second Ctrl-C or SIGTERM stops at once"

__all__ = [
    "change_study",
    "continue_study",
    "require_same_models",
    "settled",
    "start_study",
    "update_study",
]


def settled(loaded: Loaded, folder: StudyFolder, events: Events) -> Loaded:
    """Settle what a study keeps of its experiment, before its folder is made.

    Args:
        loaded: The experiment.
        folder: Where the study will be.
        events: Hears why ``auto`` does without slopes.

    Returns:
        The same with the sampler that runs: a later, larger budget must not change it.

    Raises:
        StudyError: The database cannot be opened.
    """
    if loaded.experiment.storage is not None:
        open_storage(folder.journal, loaded.experiment.storage)
    if loaded.experiment.sampler.name == "auto" and loaded.sloped.lacking(loaded.experiment):
        name, why = sampler_choice(loaded.experiment, loaded.space, loaded.sloped)
        events.noted(f"sampler auto: {name}: {why}")
    settled_one = with_settled_sampler(loaded.experiment, loaded.space, loaded.sloped)
    return replace(loaded, experiment=settled_one)


def start_study(loaded: Loaded, folder: StudyFolder) -> None:
    """Make the folder of a study."""
    folder.make()
    write_experiment(folder, with_prompts(loaded, folder))


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
    found = find_study(folder, before)
    kept = stored_inputs(found)
    if not kept and read_study(folder, found).trials:
        raise StudyError(
            f"expected models where they were: the study in {folder.root} keeps no fingerprints "
            "that would tell whether they are the same; 'evomerge resume' without other places "
            "stores them, --accept-changes goes on without"
        )
    require_same(kept, model_digests(after), folder.root)


def _update(folder: StudyFolder, after: Experiment) -> None:
    before, study = read_experiment(folder), read_study(folder)
    used = math.ceil(study.evaluations)
    if after.budget != before.budget and after.budget.trials < used:
        climbs = f", which count as {used} with their climbs" if used > len(study.trials) else ""
        raise StudyError(
            f"expected a budget of at least the {len(study.trials)} trials that were asked "
            f"already{climbs}, got {after.budget.trials}"
        )
    if after != before:
        write_experiment(folder, after)


def continue_study(
    folder: StudyFolder,
    events: Events,
    *,
    accept_changes: bool = False,
    earlier: Mapping[str, str] = {},
    loaded: Loaded | None = None,
) -> StudyRecord:
    """Run a study until its budget is met, then the finals.

    Args:
        folder: A study folder, new or interrupted.
        events: Progress.
        accept_changes: Whether models and items may be others than those of earlier trials.
        earlier: What those of earlier stages were (``stored_inputs``).
        loaded: Its experiment, if this process has loaded it; absent: it is loaded here.

    Returns:
        The study as it stands at the end.

    Raises:
        ConfigError: The experiment does not fit together.
        StudyError: The folder is in use, or belongs to another experiment; or models, tokenizer or
            items are not those of earlier trials.
    """
    with folder.require().lock():
        experiment = read_experiment(folder)
        found = find_study(folder, experiment)
        before = read_study(folder, found)
        store = store_name(folder, experiment)
        require_items(folder, store, before.trials, driver_id(folder))
        events.began(before)
        if is_finished(folder, before):
            _make_again(folder, experiment, events, found)
            return read_study(folder, found)
        if loaded is None:
            events.phase("checking the experiment")
        loaded = _loaded(folder, experiment, loaded)
        study = _opened(folder, loaded, found)
        inputs, kept = input_digests(loaded), stored_inputs(study)
        if not accept_changes:
            require_same({**earlier, **kept}, inputs, folder.root)
        keep_inputs(study, {**kept, **inputs})
        rooms = ("aligned", "experts", "observed", "prepared", "scores", "statistics")
        trim_cache(*rooms, "structures")
        log = StudyLog(folder.log)
        # It goes on while models are measured.
        executor = start_executor(experiment.execution, _hear(log, events))
        try:
            _measure(loaded, folder, events)
            events.phase("loading the workers")
            worker = on_device(loaded.worker, experiment.execution)
            executor.load(with_contents(worker, loaded))
            _search(study, loaded, folder, executor, events, log)
            _finals(study, loaded, folder, executor, events)
        finally:
            executor.close()
    return read_study(folder, study)


def _loaded(folder: StudyFolder, experiment: Experiment, known: Loaded | None) -> Loaded:
    """Load a study's experiment, or what of it is not loaded yet."""
    if known is not None and known.experiment == experiment:
        return known
    with placed_in(folder.experiment):
        return Loaded.of(experiment, None if known is None else known.tasks)


def _opened(folder: StudyFolder, loaded: Loaded, found: optuna.Study | None) -> optuna.Study:
    items = ItemStore(folder.items)
    sampler = make_sampler(loaded.experiment, loaded.space, loaded.sloped, items)
    return open_study(folder, loaded.experiment, sampler, found)


def _make_again(
    folder: StudyFolder, experiment: Experiment, events: Events, found: optuna.Study | None
) -> None:
    """Check a study that is finished, and make again what of it is damaged."""
    events.phase("checking the experiment")
    loaded = _loaded(folder, experiment, None)
    _opened(folder, loaded, found)
    if folder.comparison.is_file() and read_comparison(folder.comparison) is None:
        _measure(loaded, folder, events)


def _measure(loaded: Loaded, folder: StudyFolder, events: Events) -> None:
    """Measure the models before the workers load, which then find all in the cache on disk.

    On a cluster one worker does so for all that share its cache. Without a cache each worker
    measures what it needs when it needs it.
    """
    from evomerge.merging.measuring import measure_models
    from evomerge.merging.sources import Sources

    if cache_folder("statistics") is None or is_on_cluster(loaded.experiment.execution):
        return
    events.phase("measuring the models")
    sources = Sources.of(loaded.models, cache_folder("experts"))
    counted = partial(events.part, "statistics of the models")
    measure_models(sources, loaded.space.statistics, counted)
    if read_comparison(folder.comparison) is None:
        counted = partial(events.part, "comparing the experts")
        write_comparison(folder.comparison, compare_experts(sources, counted))


def _search(
    study: optuna.Study,
    loaded: Loaded,
    folder: StudyFolder,
    executor: Executor,
    events: Events,
    log: StudyLog,
) -> None:
    budget, is_alone = loaded.experiment.budget, loaded.experiment.storage is None
    rules, seed = loaded.experiment.race, loaded.experiment.seed
    folder.finals.unlink(missing_ok=True)  # of an earlier, smaller budget
    timing = Timing(folder.timing)
    with stops_counted(lambda: events.noted(_STOPPING)) as is_stopping:
        search = Search(
            ledger_of(study, folder, loaded.experiment),
            loaded.space,
            executor,
            budget=Budget(budget.trials, budget.wall_clock, loaded.tasks.n_items("search")),
            timing=timing,
            rivals=None if rules is None else Rivals(loaded.objectives, rules, seed),
            drivers=Drivers(study, None if is_alone else identify(folder)),
            host=Host(log, is_stopping, loaded.experiment.execution.executor == "inline"),
            on_told=_told(study, loaded, folder, events, timing),
        )
        search.seed(loaded.seeds)
        events.phase("searching")
        search.run()


def _hear(log: StudyLog, events: Events) -> Hear:
    """Write down what happens to workers, and report what people should know of it."""

    def hear(one: Happening) -> None:
        log.write(one.kind, one.trial, one.worker, text=one.text)
        if one.text:
            events.warned(one.text)

    return hear


def _told(
    study: optuna.Study, loaded: Loaded, folder: StudyFolder, events: Events, timing: Timing
) -> Callable[[TrialRecord], None]:
    """Report finished trials, and once each what the person should look into.

    That is the first climb that fails, and, when base and experts are scored, objectives that say
    nothing.
    """
    failed: list[TrialRecord] = []
    awaited = {seed.origin for seed in loaded.seeds if is_single_model(seed.origin)}

    def told(record: TrialRecord) -> None:
        events.busy(utilisation(timing.total()))
        events.told(record)
        if record.climb_error is not None and not failed:
            failed.append(record)
            events.warned(
                f"trial {record.number} was scored, but its steps along slopes failed: "
                f"{record.climb_error}; the search goes on without steps unless others succeed"
            )
        if awaited and awaited <= {record.origin}:
            for silence in silences(read_study(folder, study)):
                events.warned(str(silence))
        awaited.discard(record.origin)

    return told


def _finals(
    searched: optuna.Study,
    loaded: Loaded,
    folder: StudyFolder,
    executor: Executor,
    events: Events,
) -> None:
    n_finalists = loaded.experiment.finalists
    study = read_study(folder, searched)
    if n_finalists == 0 or not any(t.state == "complete" for t in study.trials):
        return
    events.phase("held-out finals")
    best, beside = finalists(study, n_finalists)
    found = run_finals(
        finalists=best,
        reserves=beside if loaded.constraints else (),
        baselines=baselines(study),
        objectives=study.objectives,
        executor=executor,
        items=ItemStore(folder.items),
        constraints=loaded.constraints,
        report_only=loaded.report_only,
        on_scored=partial(events.part, "scoring held-out items"),
    )
    write_finals(folder.finals, found, study.constraints)
