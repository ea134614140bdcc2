"""The parts of an experiment: what is searched, scored and traded off."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from evomerge.config.experiment import EvaluatorConfig, Experiment
from evomerge.config.load import resolve_evaluator
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, SpaceError, brief
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.suite import DEFAULT_SPLITS, Suite
from evomerge.execution.costs import COST
from evomerge.schema import parse
from evomerge.space.dataflow.dataflow import DataflowSpace
from evomerge.space.dataflow.hybrid import HybridSpace
from evomerge.space.dataflow.spec import HybridSpec, PathSpec
from evomerge.space.layer_swap import LayerSwapSpec, layer_swap_space
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.space.spec import ParameterSpec
from evomerge.study.constraints import Constraint, parse_bound
from evomerge.study.records import Objective, make_objectives

__all__ = [
    "build_space",
    "constraints_of",
    "costs_of",
    "load_suites",
    "make_suites",
    "objectives_of",
]


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


def objectives_of(experiment: Experiment) -> tuple[Objective, ...]:
    """Build the objectives of an experiment, in order."""
    return make_objectives([(o.task, o.metric, o.direction) for o in experiment.objectives])


def constraints_of(experiment: Experiment) -> tuple[Constraint, ...]:
    """Build the constraints of an experiment, one per bound."""
    sides: tuple[Literal["at_least", "at_most"], ...] = ("at_least", "at_most")
    return tuple(
        Constraint(config.task, config.metric, side, parse_bound(bound), str(bound))
        for config in experiment.constraints
        for side in sides
        if (bound := getattr(config, side)) is not None
    )


def costs_of(objectives: Sequence[Objective], constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """List what workers must measure beside scores, each once."""
    wanted: list[Objective | Constraint] = [*objectives, *constraints]
    return tuple(dict.fromkeys(m.metric for m in wanted if m.task == COST))


# By kind: the record that the keys are read into, and what builds the space from it.
_KINDS: Mapping[str, tuple[type[Any], Callable[[Any, ModelSet], SearchSpace]]] = {
    "parameter": (ParameterSpec, ParameterSpace),
    "layer_swap": (LayerSwapSpec, layer_swap_space),
    "dataflow": (PathSpec, DataflowSpace),
    "hybrid": (HybridSpec, HybridSpace),
}


def build_space(content: Mapping[str, Any], models: ModelSet, where: str) -> SearchSpace:
    """Build a search space from plain data.

    Args:
        content: The keys of a space file.
        models: What is mixed.
        where: Named in faults.

    Raises:
        ConfigError: Listing every fault, one line each.
    """
    kind = content.get("kind", "parameter")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ConfigError(f"{where}: kind: expected one of {', '.join(_KINDS)}, got {brief(kind)}")
    spec_type, build = _KINDS[kind]
    spec = parse(spec_type, content, where)
    try:
        return build(spec, models)
    except SpaceError as err:
        raise ConfigError(*(f"{where}: {fault}" for fault in str(err).splitlines())) from None
