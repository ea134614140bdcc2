"""Puts the parts of an experiment together, and finds every fault before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.config.experiment import EvaluatorConfig, Experiment
from evomerge.config.load import resolve_evaluator
from evomerge.config.presets import Presets
from evomerge.config.spaces import build_space
from evomerge.errors import CheckpointError, ConfigError, EvomergeError
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.suite import DEFAULT_SPLITS, SPLITS, Suite
from evomerge.execution.protocol import WorkerSpec
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.study.records import Objective
from evomerge.study.trials import make_objectives

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = [
    "Assembly",
    "assemble",
    "load_suites",
    "make_sampler",
    "make_suites",
    "sampler_choice",
]


@dataclass(frozen=True)
class Assembly:
    """An experiment whose parts fit together.

    Attributes:
        experiment: The resolved experiment.
        models: What is mixed.
        space: What varies.
        suites: What candidates are scored on.
        objectives: What is traded off.
        worker: What each worker loads.
    """

    experiment: Experiment
    models: ModelSet
    space: SearchSpace
    suites: tuple[Suite, ...]
    objectives: tuple[Objective, ...]
    worker: WorkerSpec


def assemble(experiment: Experiment, where: str) -> Assembly:
    """Build every part of a resolved experiment except its workers.

    Reads the headers of checkpoints and the data of tasks; loads no model.

    Args:
        experiment: As ``load_experiment`` returns it.
        where: Named in faults.

    Raises:
        ConfigError: Listing every fault of every part, one line each.
    """
    faults: list[str] = []
    models = _models(experiment, where, faults)
    space = _space(experiment, models, where, faults)
    suites = make_suites(experiment)
    objectives = make_objectives([(o.task, o.metric, o.direction) for o in experiment.objectives])
    faults += _objective_faults(objectives, suites, where)
    faults += _final_split_faults(experiment, suites, where)
    if faults:
        raise ConfigError(*faults)
    assert space is not None, "a missing space is a fault"
    worker = WorkerSpec(
        base=models.base,
        experts=models.experts,
        suites=suites,
        dtype=models.dtype,
        gates=experiment.gates,
        rungs=() if experiment.race is None else experiment.race.rungs,
    )
    assembly = Assembly(experiment, models, space, suites, objectives, worker)
    make_sampler(assembly)  # its options may be wrong, too
    return assembly


def make_sampler(assembly: Assembly) -> BaseSampler:
    """Build the experiment's sampler for its space.

    Raises:
        ConfigError: Unknown sampler or option.
    """
    from evomerge.samplers import GeneSpace, build_sampler

    experiment = assembly.experiment
    return build_sampler(
        experiment.sampler.name,
        experiment.sampler.options,
        space=GeneSpace(assembly.space.distributions, assembly.space.defaults),
        n_objectives=len(assembly.objectives),
        n_trials=experiment.budget.trials,
        seed=experiment.seed,
    )


def sampler_choice(assembly: Assembly) -> tuple[str, str]:
    """Name the sampler that will run, and why: ``auto`` chooses by a rule, other names say it."""
    from evomerge.samplers import GeneSpace, choose, sampler_names

    name = assembly.experiment.sampler.name
    if name != "auto":
        return name, f"named in the experiment; {sampler_names()[name]}"
    space = GeneSpace(assembly.space.distributions, assembly.space.defaults)
    n_trials = assembly.experiment.budget.trials
    return choose(space, n_objectives=len(assembly.objectives), n_trials=n_trials)


def make_suites(experiment: Experiment) -> tuple[Suite, ...]:
    """Build the task suites of a resolved experiment."""
    smooth = {o.task for o in experiment.objectives if o.metric in SMOOTH_METRICS}
    return tuple(
        replace(
            _suite(config, f"evaluators[{i}]"),
            smooth=frozenset(smooth),
            allow_test_split=experiment.allow_test_split,
        )
        for i, config in enumerate(experiment.evaluators)
    )


def load_suites(names: Sequence[str], presets: Presets, beside: Path) -> tuple[Suite, ...]:
    """Build task suites from evaluator presets or files.

    Raises:
        ConfigError: A name or file is wrong.
    """
    return tuple(
        _suite(EvaluatorConfig(**resolve_evaluator(name, presets, beside)), name) for name in names
    )


def _models(experiment: Experiment, where: str, faults: list[str]) -> ModelSet:
    from evomerge.merging.sources import Sources

    config, n_layers = experiment.models, 1
    try:
        n_layers = Sources(config.base, config.experts).architecture.n_layers
    except CheckpointError as err:
        faults += [f"{where}: models: {line}" for line in str(err).splitlines()]
    return ModelSet(
        base=config.base,
        experts=config.experts,
        n_layers=n_layers,
        dtype=config.dtype,
        seed=experiment.seed,
    )


def _space(
    experiment: Experiment, models: ModelSet, where: str, faults: list[str]
) -> SearchSpace | None:
    assert isinstance(experiment.search_space, dict), "load_experiment inlines presets"
    models_are_known = not faults
    try:
        return build_space(experiment.search_space, models, f"{where}: search_space")
    except ConfigError as err:
        # Without models the number of layers is unknown, and faults about it would mislead.
        faults += [f for f in err.faults if models_are_known or "depth." not in f]
        return None


def _suite(config: str | EvaluatorConfig, name: str) -> Suite:
    assert isinstance(config, EvaluatorConfig), "load_experiment inlines presets"
    content = config.model_dump(exclude={"tasks", "include_path", "splits"})
    return Suite(
        name=name,
        tasks=tuple(config.tasks),
        include_path=Path(config.include_path) if config.include_path else None,
        splits=config.splits or DEFAULT_SPLITS,  # type: ignore[arg-type]
        **content,
    )


def _objective_faults(
    objectives: tuple[Objective, ...], suites: tuple[Suite, ...], where: str
) -> Iterator[str]:
    from evomerge.evaluation import metric_names

    try:
        known = metric_names(suites)
    except EvomergeError as err:
        yield from (f"{where}: {line}" for line in str(err).splitlines())
        return
    for i, objective in enumerate(objectives):
        place = f"{where}: objectives[{i}]"
        if objective in objectives[:i]:
            yield f"{place}: {objective.task} {objective.metric} is an objective already"
        if objective.task not in known:
            yield f"{place}.task: {_expected(objective.task, tuple(known), 'task')}"
        elif objective.metric not in known[objective.task]:
            metrics = known[objective.task]
            yield f"{place}.metric: {_expected(objective.metric, metrics, 'metric')}"


def _final_split_faults(
    experiment: Experiment, suites: tuple[Suite, ...], where: str
) -> Iterator[str]:
    """The finals need held-out items."""
    for suite in suites if experiment.finalists else ():
        missing = [split for split in SPLITS if split not in suite.splits]
        if missing:
            yield (
                f"{where}: {suite.name}.splits: expected {', '.join(SPLITS)}, got no "
                f"{' and no '.join(missing)}; add them, or set finalists: 0 to do without the "
                "held-out finals"
            )


def _expected(got: str, known: tuple[str, ...], what: str) -> str:
    near = get_close_matches(got, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected a {what} out of {', '.join(known)}, got {got!r}{hint}"
