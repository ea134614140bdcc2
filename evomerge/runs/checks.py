"""What can be wrong with parts that are well-formed each by itself, by the experiment's keys."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from evomerge import origins
from evomerge.config.experiment import ConstraintConfig, Experiment, ObjectiveConfig
from evomerge.errors import Fault, KeyPath, did_you_mean
from evomerge.evaluation.engine_choice import OF_IMAGES, EngineChoice, argument_faults
from evomerge.evaluation.suite import SPLITS, Suite
from evomerge.execution.costs import COST, OF_ANSWERS, cost_fault
from evomerge.models.parts import parts_of
from evomerge.runs.goals import bounds_of
from evomerge.runs.workers import worker_device
from evomerge.space.baselines import Baseline, Seeds
from evomerge.space.ensemble import has_ensembles
from evomerge.space.protocol import SearchSpace
from evomerge.study.constraints import parse_bound

if TYPE_CHECKING:
    from evomerge.evaluation.catalogue import TaskCatalogue
    from evomerge.merging.sources import Sources

__all__ = [
    "Candidates",
    "bound_faults",
    "distance_faults",
    "engine_faults",
    "final_split_faults",
    "image_faults",
    "metric_faults",
    "placement_faults",
    "seed_faults",
    "task_faults",
    "unreached_faults",
]


@dataclass(frozen=True)
class Candidates:
    """What a search scores.

    Attributes:
        space: What makes most of them; ``None``: it is not known.
        seeds: What it starts from.
    """

    space: SearchSpace | None
    seeds: Seeds

    @property
    def are_ensembles(self) -> bool:
        """Whether the space has ensembles; of others no seed may be one."""
        return has_ensembles(self.space)

    @property
    def with_paths(self) -> str | None:
        """Those that run other layers than the base's, in words; ``None``: all run these."""
        if self.space is not None and self.space.recipe(self.space.defaults).path:
            return "a space with data-flow paths"
        named = [origin for origin, recipe in self.seeds.recipes.items() if recipe.path]
        return f"seeds with data-flow paths ({', '.join(named)})" if named else None


def seed_faults(candidates: Candidates) -> Iterator[Fault]:
    """Workers hold copies of models that answer together only where the space has ensembles."""
    if candidates.space is None or candidates.are_ensembles:
        return
    recipes = candidates.seeds.recipes.items()
    if named := [origin for origin, recipe in recipes if recipe.ensemble is not None]:
        text = (
            "expected merges, which candidates of this space are, got ensembles "
            f"({', '.join(named)})"
        )
        yield Fault(("seeds", "recipes"), text, "leave them out, or search_space: {kind: ensemble}")


def task_faults(tasks: TaskCatalogue, suites: tuple[Suite, ...]) -> Iterator[Fault]:
    """What is wrong with the tasks, by the keys of the experiment rather than of its suites."""
    positions = {suite.name: i for i, suite in enumerate(suites)}
    for fault in tasks.faults:
        name, *path = fault.path
        yield replace(fault, path=("evaluators", positions[str(name)], *path))


def metric_faults(
    experiment: Experiment, tasks: TaskCatalogue, experts: tuple[str, ...]
) -> Iterator[Fault]:
    """Tasks and metrics must exist, and the search may not see what is only reported."""
    measured = [(objective.task, objective.metric) for objective in experiment.objectives]
    for i, objective in enumerate(experiment.objectives):
        if measured[i] in measured[:i]:
            text = f"{objective.task} {objective.metric} is an objective already"
            yield Fault(("objectives", i), text)
        yield from (f.under("objectives", i) for f in _metric_fault(objective, tasks, experts))
    for i, constraint in enumerate(experiment.constraints):
        yield from (f.under("constraints", i) for f in _metric_fault(constraint, tasks, experts))
    if not tasks.has_answers and not tasks.faults:
        for name in OF_ANSWERS:
            text = f"expected a task that generates text for {name}, got none"
            yield from (Fault((*path, "cost"), text) for path in _costs(experiment, name))


def _metric_fault(
    wanted: ObjectiveConfig | ConstraintConfig, tasks: TaskCatalogue, experts: tuple[str, ...]
) -> Iterator[Fault]:
    task, metric, known = wanted.task, wanted.metric, tasks.metrics
    if task == COST:
        if text := cost_fault(metric, experts):
            yield Fault(("cost",), text)
    elif task in tasks.reported and task not in known:  # in both: that is the fault
        text = f"{task} is in a report_only evaluator, which the search must not see"
        yield Fault(("task",), text, "drop report_only there, or choose another task")
    elif task in known and metric not in known[task]:
        yield Fault(("metric",), _expected(metric, known[task], "metric"))
    elif task not in known and task not in tasks.missing:
        yield Fault(("task",), _expected(task, tuple(known), "task"))


def image_faults(experiment: Experiment, tasks: TaskCatalogue) -> Iterator[Fault]:
    """Gates and the cost ``kl`` read prompts of text alone; some arguments are of images alone."""
    if tasks.faults:
        return
    if tasks.images is None:
        for key in OF_IMAGES:
            if key in experiment.engine.arguments:
                text = "expected a task with images for what is said of them, got none"
                yield Fault(("engine", key), text, "leave it out")
    if tasks.has_texts:
        return
    text = "expected a task without images, because {} reads prompts of text alone, got none"
    if experiment.gates is not None:
        yield Fault(("gates",), text.format("a gate"), "set gates: off")
    for path in _costs(experiment, "kl"):
        yield Fault((*path, "cost"), text.format("kl"), "use the cost distance")


def bound_faults(experiment: Experiment, experts: tuple[str, ...]) -> Iterator[Fault]:
    """What a bound refers to must be among the seeds."""
    seeds, winners = experiment.seeds, experiment.models.winners
    originals = [name for name in experts if name not in winners]
    parents = (origins.BASE, *map(origins.expert, originals)) if seeds.parents else ()
    known = (*parents, *((origins.UNIFORM,) if seeds.averages and len(experts) > 1 else ()))
    for path, reference in _references(experiment):
        if reference not in known:
            yield Fault(path, _expected(reference, known, "baseline"))


def unreached_faults(experiment: Experiment, found: tuple[Baseline, ...]) -> Iterator[Fault]:
    """A constraint holds nothing if the budget ends before the baseline it refers to."""
    n_trials = experiment.budget.trials
    reached = [baseline.origin for baseline in found[:n_trials]]
    for path, reference in _references(experiment):
        if reference not in reached:
            text = (
                f"expected a budget of at least {len(found)} trials, to score {reference} before "
                f"the search, got {n_trials}"
            )
            yield Fault(path, text)


def _references(experiment: Experiment) -> Iterator[tuple[KeyPath, str]]:
    """The baselines that bounds refer to, and where."""
    for i, config in enumerate(experiment.constraints):
        for side, bound in bounds_of(config):
            if (reference := parse_bound(bound).reference) is not None:
                yield ("constraints", i, side), reference


def _costs(experiment: Experiment, name: str) -> Iterator[KeyPath]:
    """Find where a cost is an objective or bounded."""
    wanted = [(("objectives", i), metric) for i, metric in enumerate(experiment.objectives)]
    bounded = [(("constraints", i), metric) for i, metric in enumerate(experiment.constraints)]
    for path, metric in [*wanted, *bounded]:
        if metric.task == COST and metric.metric.partition(":")[0] == name:
            yield path


def distance_faults(experiment: Experiment, candidates: Candidates) -> Iterator[Fault]:
    """A distance needs layers that match those of its reference, and one model that has them."""
    if which := candidates.with_paths:
        text = f"expected no distance of {which}, whose layers match no reference's"
        for path in _costs(experiment, "distance"):
            yield Fault((*path, "cost"), text, "use the cost kl")
    if candidates.are_ensembles:
        text = "expected a space of merges, got ensembles, which have no tensors of their own"
        for path in _costs(experiment, "distance"):
            yield Fault((*path, "cost"), text, "use the cost kl")


def placement_faults(
    experiment: Experiment, candidates: Candidates, sources: Sources | None
) -> Iterator[Fault]:
    """A candidate is spread over whole GPUs, layer by layer."""
    path, n = ("execution", "gpus_per_worker"), experiment.execution.gpus_per_worker
    if n <= 1:
        return
    if n != int(n):
        yield Fault(path, f"expected a share of a GPU or a whole number of them, got {n:g}")
    elif sources is not None and n > (n_layers := sources.architecture.n_layers):
        text = f"expected at most one GPU for each of {n_layers} layers, got {n:g}"
        yield Fault(path, text)
    if which := candidates.with_paths:
        text = f"expected at most 1 for {which}, whose layers are not spread"
        yield Fault(path, f"{text}, got {n:g}")
    if candidates.are_ensembles:
        text = "expected at most 1 for a space of ensembles, whose models are not spread"
        yield Fault(path, f"{text}, got {n:g}")


def engine_faults(
    experiment: Experiment, candidates: Candidates, sources: Sources | None
) -> Iterator[Fault]:
    """What is wrong with the engine's arguments, and what stands in the way of vLLM."""
    path, engine = ("engine",), experiment.engine
    is_there = find_spec("vllm") is not None
    known = _known_to_vllm if is_there else None
    yield from (fault.under(*path) for fault in argument_faults(engine, known))
    if engine.name != "vllm":
        yield from _quantizing_faults(engine, candidates, sources)
        return
    if not is_there:
        text = ", so that its arguments cannot be looked at" if engine.arguments else ""
        yield Fault(path, f"vllm is not installed{text}", "pip install vllm")
    yield from _split_faults(experiment)
    if worker_device(experiment.execution)[0] == "cpu":
        yield Fault(path, "expected transformers for workers without a GPU, got vllm")
    if sources is not None and sources.vocabulary is not None:
        text = "expected transformers for models whose vocabularies differ, which vLLM loads as the"
        yield Fault(path, f"{text} base has it, got vllm", "set engine: transformers")
    if sources is not None and parts_of(sources.anchor.config) is not None:
        text = "expected transformers for models of vision and language, got vllm"
        yield Fault(path, text, "set engine: transformers")
    if which := candidates.with_paths:
        text = f"expected transformers for {which}, which vLLM cannot run"
        yield Fault(path, f"{text}, got vllm")
    if candidates.are_ensembles:
        text = "expected transformers for a space of ensembles, which vLLM cannot run"
        yield Fault(path, f"{text}, got vllm")


def _quantizing_faults(
    engine: EngineChoice, candidates: Candidates, sources: Sources | None
) -> Iterator[Fault]:
    """What stands in the way of scoring candidates with quantized weights."""
    from evomerge.merging.quantized import QUANTIZATIONS

    path, wanted = ("engine", "quantize"), engine.quantize
    if wanted is None:
        return
    if wanted not in [*QUANTIZATIONS]:  # it may be anything
        yield Fault(path, _expected(str(wanted), tuple(QUANTIZATIONS), "quantization"))
        return
    if find_spec("torchao") is None:
        yield Fault(path, "torchao is not installed", "pip install 'evomerge[quantize]'")
    if which := candidates.with_paths:
        text = f"expected nothing for {which}, whose layers are not quantized"
        yield Fault(path, f"{text}, got {wanted}", "leave it out")
    if candidates.are_ensembles:
        text = "expected a space of merges, got ensembles, whose models are not quantized"
        yield Fault(path, text, "leave it out")
    if sources is not None and (why := _no_quantizing(sources, wanted)):
        yield Fault(path, why, "leave it out")


def _no_quantizing(sources: Sources, wanted: str) -> str | None:
    from evomerge.merging.quantized import quantize_fault
    from evomerge.models.structure import empty_model

    model = empty_model(sources.anchor.config)
    return None if model is None else quantize_fault(model, wanted)


def _known_to_vllm() -> Collection[str]:
    """Name vLLM's arguments; it is imported only if some are given."""
    from evomerge.evaluation.vllm_engine import known_arguments

    return known_arguments()


def _split_faults(experiment: Experiment) -> Iterator[Fault]:
    """Models are split by vLLM over the GPUs of its worker."""
    arguments, gpus = experiment.engine.arguments, max(1, experiment.execution.gpus_per_worker)
    for key in ("tensor_parallel_size", "pipeline_parallel_size"):
        if isinstance(size := arguments.get(key, 1), int) and size > gpus:
            text = f"expected at most the {gpus:g} GPUs of a worker, got {size}"
            hint = f"set execution.gpus_per_worker: {size}"
            yield Fault(("engine", key), text, hint)


def final_split_faults(experiment: Experiment, suites: tuple[Suite, ...]) -> Iterator[Fault]:
    """The finals need held-out items, and suites that are only reported need the finals."""
    for i, suite in enumerate(suites):
        missing = [split for split in SPLITS if split not in suite.splits]
        if experiment.finalists and missing and not suite.report_only:
            text = f"expected {', '.join(SPLITS)}, got no {' and no '.join(missing)}"
            hint = "add them, or set finalists: 0 to do without the held-out finals"
            yield Fault(("evaluators", i, "splits"), text, hint)
        if suite.report_only and not experiment.finalists:
            text = (
                "expected finalists of at least 1, because the finals alone score what the search "
                "never sees, got 0"
            )
            yield Fault(("evaluators", i, "report_only"), text)


def _expected(got: str, known: tuple[str, ...], what: str) -> str:
    if not known:
        return f"expected a {what} that is known, got {got!r}; none is"
    return f"expected a {what} out of {', '.join(known)}, got {got!r}{did_you_mean(got, known)}"
