"""Puts the parts of an experiment together, and finds every fault before any model is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from evomerge.config.experiment import EvaluatorConfig, Experiment, SamplerConfig
from evomerge.config.importance import with_boundaries
from evomerge.config.load import resolve_evaluator
from evomerge.config.presets import Presets
from evomerge.config.seeds import make_seeds, resolve_seeds
from evomerge.config.spaces import build_space
from evomerge.errors import CheckpointError, ConfigError, EvomergeError, SpaceError
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.suite import DEFAULT_SPLITS, SPLITS, Suite
from evomerge.execution.costs import COST, Cost, cost_fault
from evomerge.execution.protocol import WorkerSpec
from evomerge.models.architecture import TensorRole
from evomerge.models.reference import split_hub_id
from evomerge.space.baselines import Baseline, baselines
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.study.constraints import Constraint, parse_bound
from evomerge.study.records import Objective
from evomerge.study.trials import make_objectives

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from evomerge.evaluation.harness import LanguageModel
    from evomerge.evaluation.store import ItemStore
    from evomerge.samplers import Budget, GeneSpace

__all__ = [
    "Assembly",
    "assemble",
    "load_suites",
    "make_constraints",
    "make_sampler",
    "make_suites",
    "resolved_sampler",
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
        constraints: What must be kept.
        worker: What each worker loads.
        seeds: What is evaluated before the search.
        report_only: What is measured after it, of tasks that it never sees.
    """

    experiment: Experiment
    models: ModelSet
    space: SearchSpace
    suites: tuple[Suite, ...]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    worker: WorkerSpec
    seeds: tuple[Baseline, ...]
    report_only: tuple[Objective, ...]


def assemble(experiment: Experiment, where: str) -> Assembly:
    """Build every part of a resolved experiment except its workers.

    Reads the headers of checkpoints and the data of tasks; loads no model.

    Args:
        experiment: As ``load_experiment`` returns it. That of the result has what only other
            files and the models know spelt out: seed recipes, and groups of layers by importance.
        where: Named in faults.

    Raises:
        ConfigError: Listing every fault of every part, one line each.
    """
    from evomerge.evaluation.checks import report_only_measures

    faults: list[str] = []
    models = _models(experiment, where, faults)
    models_are_known = not faults
    experiment = _spelt_out(experiment, f"{where}: seeds", faults)
    seeds = make_seeds(experiment.seeds, models, f"{where}: seeds", faults)
    space = _space(experiment, models, where, faults, models_are_known=models_are_known)
    suites = make_suites(experiment)
    objectives = make_objectives([(o.task, o.metric, o.direction) for o in experiment.objectives])
    constraints = make_constraints(experiment)
    reader = _reader(models.base, where, faults) if models_are_known else None
    faults += _metric_faults(objectives, constraints, suites, models, reader, where)
    faults += _bound_faults(constraints, experiment, where)
    faults += _distance_faults(space, _costs(objectives, constraints), where)
    faults += _engine_faults(experiment, space, where)
    faults += _final_split_faults(experiment, suites, where)
    faults += _sampler_faults(experiment, space, where)
    if faults:
        raise ConfigError(*faults)
    assert space is not None, "a missing space is a fault"
    worker = WorkerSpec(
        base=models.base,
        experts=models.experts,
        suites=suites,
        dtype=models.dtype,
        costs=_costs(objectives, constraints),
        gates=experiment.gates,
        rungs=() if experiment.race is None else experiment.race.rungs,
        engine=experiment.engine,
    )
    found = baselines(space, models, seeds)
    if faults := list(_unreached_faults(constraints, found, experiment.budget.trials, where)):
        raise ConfigError(*faults)
    return Assembly(
        experiment,
        models,
        space,
        suites,
        objectives,
        constraints,
        worker,
        found,
        make_objectives(report_only_measures(suites)),
    )


def make_sampler(assembly: Assembly, items: ItemStore | None = None) -> BaseSampler:
    """Build the experiment's sampler for its space.

    Args:
        assembly: The parts.
        items: Item scores of the study, for samplers that look at them.

    Raises:
        ConfigError: Unknown sampler or option; ``assemble`` has looked for them.
    """
    from evomerge.config.item_scores import ItemRows

    scores = None if items is None else ItemRows(items, assembly.objectives)
    return _sampler(assembly.experiment, replace(_budget(assembly), item_scores=scores))


def resolved_sampler(assembly: Assembly) -> SamplerConfig:
    """Settle which sampler runs, and the options that follow the budget, which may grow later."""
    from evomerge.samplers import resolve_sampler

    sampler = assembly.experiment.sampler
    name, options = resolve_sampler(sampler.name, sampler.options, _budget(assembly))
    return SamplerConfig(name=name, **options)


def _budget(assembly: Assembly) -> Budget:
    from evomerge.samplers import GeneSpace

    space = GeneSpace(assembly.space.distributions, assembly.space.defaults)
    return _budget_over(space, assembly.experiment)


def _budget_over(space: GeneSpace, experiment: Experiment) -> Budget:
    from evomerge.samplers import Budget

    return Budget(
        space=space,
        n_objectives=len(experiment.objectives),
        n_trials=experiment.budget.trials,
        seed=experiment.seed,
        constrained=bool(experiment.constraints),
    )


def _sampler(experiment: Experiment, budget: Budget) -> BaseSampler:
    from evomerge.samplers import build_sampler

    return build_sampler(
        experiment.sampler.name,
        experiment.sampler.options,
        space=budget.space,
        n_objectives=budget.n_objectives,
        n_trials=budget.n_trials,
        seed=budget.seed,
        constrained=budget.constrained,
        item_scores=budget.item_scores,
    )


def _sampler_faults(experiment: Experiment, space: SearchSpace | None, where: str) -> Iterator[str]:
    """Build the sampler once; where the space is wrong itself, for no gene, which any can do."""
    from evomerge.samplers import GeneSpace

    genes = GeneSpace({}, {}) if space is None else GeneSpace(space.distributions, space.defaults)
    try:
        _sampler(experiment, _budget_over(genes, experiment))
    except ConfigError as err:
        yield from (f"{where}: {fault}" for fault in err.faults)
    except SpaceError as err:
        yield from (f"{where}: sampler: {line}" for line in str(err).splitlines())


def sampler_choice(assembly: Assembly) -> tuple[str, str]:
    """Name the sampler that will run, and why: ``auto`` chooses by a rule, other names say it."""
    from evomerge.samplers import choose, sampler_names

    name, budget = assembly.experiment.sampler.name, _budget(assembly)
    if name != "auto":
        return name, f"named in the experiment; {sampler_names()[name]}"
    return choose(budget.space, n_objectives=budget.n_objectives, n_trials=budget.n_trials)


def make_constraints(experiment: Experiment) -> tuple[Constraint, ...]:
    """Build the constraints of an experiment, one per bound."""
    sides: tuple[Literal["at_least", "at_most"], ...] = ("at_least", "at_most")
    return tuple(
        Constraint(config.task, config.metric, side, parse_bound(bound), str(bound))
        for config in experiment.constraints
        for side in sides
        if (bound := getattr(config, side)) is not None
    )


def make_suites(experiment: Experiment) -> tuple[Suite, ...]:
    """Build the task suites of a resolved experiment."""
    wanted = [*experiment.objectives, *experiment.constraints]
    smooth = {metric.task for metric in wanted if metric.metric in SMOOTH_METRICS}
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
    from evomerge.models.opening import peek_model

    config, n_layers = experiment.models, 1
    tensors: dict[str, TensorRole] = {}
    try:
        sources = Sources(config.base, config.experts, open_full=peek_model)
        n_layers = sources.architecture.n_layers
        tensors = {name: sources.architecture.roles[name] for name in sources.names}
    except CheckpointError as err:
        faults += [f"{where}: models: {line}" for line in str(err).splitlines()]
    return ModelSet(
        base=config.base,
        experts=config.experts,
        n_layers=n_layers,
        dtype=config.dtype,
        seed=experiment.seed,
        tensors=tensors,
        winners=tuple(config.winners),
    )


def _reader(base: str, where: str, faults: list[str]) -> LanguageModel | None:
    """Read prompts as candidates will: with the base's tokenizer and its context, no parameters."""
    from transformers import AutoConfig, AutoTokenizer

    from evomerge.evaluation.harness import LanguageModel
    from evomerge.evaluation.hygiene import clean_harness
    from evomerge.models.opening import peek_model

    folder, hub_id = peek_model(base).folder, split_hub_id(base)
    name, revision = (str(folder), None) if hub_id is None else hub_id
    try:
        with clean_harness():
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
            return LanguageModel.without_parameters(tokenizer, AutoConfig.from_pretrained(folder))
    except (OSError, ValueError) as err:
        reason = " ".join(str(err).split())
        faults.append(f"{where}: models.base: expected {base} to have a tokenizer: {reason}")
        return None


def _spelt_out(experiment: Experiment, where: str, faults: list[str]) -> Experiment:
    seeds = resolve_seeds(experiment.seeds, where, faults)
    if seeds != experiment.seeds:
        experiment = experiment.model_copy(update={"seeds": seeds})
    return with_boundaries(experiment)


def _space(
    experiment: Experiment,
    models: ModelSet,
    where: str,
    faults: list[str],
    *,
    models_are_known: bool,
) -> SearchSpace | None:
    assert isinstance(experiment.search_space, dict), "load_experiment inlines presets"
    try:
        return build_space(experiment.search_space, models, f"{where}: search_space")
    except ConfigError as err:
        # Without models the number of layers is unknown, and faults about it would mislead.
        about_layers = ("depth.", "initial: ", "(the models' layers)")
        faults += [
            f for f in err.faults if models_are_known or not any(a in f for a in about_layers)
        ]
        return None


def _suite(config: str | EvaluatorConfig, name: str) -> Suite:
    assert isinstance(config, EvaluatorConfig), "load_experiment inlines presets"
    content = config.model_dump(exclude={"tasks", "include_path", "splits"})
    return Suite(
        name=name,
        tasks=tuple(config.tasks),
        include_path=Path(config.include_path) if config.include_path else None,
        splits=config.splits or ({"test": 1.0} if config.report_only else DEFAULT_SPLITS),  # type: ignore[arg-type]
        **content,
    )


def _metric_faults(
    objectives: tuple[Objective, ...],
    constraints: tuple[Constraint, ...],
    suites: tuple[Suite, ...],
    models: ModelSet,
    reader: LanguageModel | None,
    where: str,
) -> Iterator[str]:
    from evomerge.evaluation.checks import has_answers, metric_names

    try:
        known = metric_names(suites, reader)
        unseen = metric_names([suite for suite in suites if suite.report_only])
    except EvomergeError as err:
        yield from (f"{where}: {line}" for line in str(err).splitlines())
        return
    experts = tuple(models.experts)
    known = {task: metrics for task, metrics in known.items() if task not in unseen}
    for i, objective in enumerate(objectives):
        place = f"{where}: objectives[{i}]"
        if objective in objectives[:i]:
            yield f"{place}: {objective.task} {objective.metric} is an objective already"
        yield from _metric_fault(objective, known, unseen, experts, place)
    for constraint in constraints:
        yield from _metric_fault(
            constraint, known, unseen, experts, f"{where}: constraint '{constraint.name}'"
        )
    searched = [suite for suite in suites if not suite.report_only]
    if "output_tokens" in _costs(objectives, constraints) and not has_answers(searched):
        yield f"{where}: cost output_tokens: expected a task that generates text, got none"


def _metric_fault(
    wanted: Objective | Constraint,
    known: Mapping[str, tuple[str, ...]],
    unseen: Collection[str],
    experts: tuple[str, ...],
    place: str,
) -> Iterator[str]:
    task, metric = wanted.task, wanted.metric
    if task == COST:
        if fault := cost_fault(metric, experts):
            yield f"{place}.cost: {fault}"
    elif task in unseen:
        yield (
            f"{place}.task: {task} is in a report_only evaluator, which the search must not see; "
            "drop report_only there, or choose another task"
        )
    elif task not in known:
        yield f"{place}.task: {_expected(task, tuple(known), 'task')}"
    elif metric not in known[task]:
        yield f"{place}.metric: {_expected(metric, known[task], 'metric')}"


def _costs(
    objectives: tuple[Objective, ...], constraints: tuple[Constraint, ...]
) -> tuple[str, ...]:
    """List what workers must measure beside scores, each once."""
    wanted: list[Objective | Constraint] = [*objectives, *constraints]
    return tuple(dict.fromkeys(m.metric for m in wanted if m.task == COST))


def _distance_faults(
    space: SearchSpace | None, costs: tuple[str, ...], where: str
) -> Iterator[str]:
    if _has_paths(space) and any(Cost.of(cost).name == "distance" for cost in costs):
        yield (
            f"{where}: cost distance: expected a space without data-flow paths, whose layers match "
            "no reference's; use the cost kl"
        )


def _has_paths(space: SearchSpace | None) -> bool:
    return space is not None and bool(space.recipe(space.defaults).path)


def _engine_faults(experiment: Experiment, space: SearchSpace | None, where: str) -> Iterator[str]:
    """What stands in the way of vLLM."""
    import torch

    if experiment.engine != "vllm":
        return
    if find_spec("vllm") is None:
        yield f"{where}: engine: vllm is not installed; pip install 'evomerge[vllm]'"
    if not torch.cuda.device_count() or experiment.execution.gpus_per_worker == 0:
        yield f"{where}: engine: expected transformers for workers without a GPU, got vllm"
    if _has_paths(space):
        yield (
            f"{where}: engine: expected transformers for a space with data-flow paths, which vLLM "
            "cannot run, got vllm"
        )


def _bound_faults(
    constraints: tuple[Constraint, ...], experiment: Experiment, where: str
) -> Iterator[str]:
    seeds, models = experiment.seeds, experiment.models
    experts = [name for name in models.experts if name not in models.winners]
    parents = ("base", *(f"expert:{name}" for name in experts)) if seeds.parents else ()
    known = (*parents, *(("uniform",) if seeds.averages and len(models.experts) > 1 else ()))
    for constraint in constraints:
        reference = constraint.bound.reference
        if reference is not None and reference not in known:
            place = f"{where}: constraint '{constraint.name}'"
            yield f"{place}: {_expected(reference, known, 'baseline')}"


def _unreached_faults(
    constraints: tuple[Constraint, ...], found: tuple[Baseline, ...], n_trials: int, where: str
) -> Iterator[str]:
    """A constraint holds nothing if the budget ends before the baseline it refers to."""
    reached = [baseline.origin for baseline in found[:n_trials]]
    for constraint in constraints:
        reference = constraint.bound.reference
        if reference is not None and reference not in reached:
            yield (
                f"{where}: constraint '{constraint.name}': expected a budget of at least "
                f"{len(found)} trials, to score {reference} before the search, got {n_trials}"
            )


def _final_split_faults(
    experiment: Experiment, suites: tuple[Suite, ...], where: str
) -> Iterator[str]:
    """The finals need held-out items, and suites that are only reported need the finals."""
    for suite in suites:
        missing = [split for split in SPLITS if split not in suite.splits]
        if experiment.finalists and missing and not suite.report_only:
            yield (
                f"{where}: {suite.name}.splits: expected {', '.join(SPLITS)}, got no "
                f"{' and no '.join(missing)}; add them, or set finalists: 0 to do without the "
                "held-out finals"
            )
        if suite.report_only and not experiment.finalists:
            yield (
                f"{where}: {suite.name}.report_only: expected finalists of at least 1, because the "
                "finals alone score what the search never sees, got 0"
            )


def _expected(got: str, known: tuple[str, ...], what: str) -> str:
    near = get_close_matches(got, known, n=1, cutoff=0.4)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"expected a {what} out of {', '.join(known)}, got {got!r}{hint}"
