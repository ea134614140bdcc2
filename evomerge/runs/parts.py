"""The parts of an experiment: the search space, and the suites of tasks that are scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.config.experiment import EvaluatorConfig, Experiment
from evomerge.config.load import read_evaluator
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, Fault, brief, collected
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.suite import DEFAULT_SPLITS, Suite
from evomerge.schema import fit, parse
from evomerge.space.checks import spec_faults
from evomerge.space.dataflow.dataflow import DataflowSpace, dataflow_faults
from evomerge.space.dataflow.hybrid import HybridSpace, hybrid_faults
from evomerge.space.dataflow.spec import HybridSpec, PathSpec
from evomerge.space.ensemble import EnsembleSpace, EnsembleSpec, ensemble_faults
from evomerge.space.layer_swap import LayerSwapSpec, layer_swap_space, swap_faults
from evomerge.space.parameter import ParameterSpace
from evomerge.space.protocol import ModelSet, SearchSpace
from evomerge.space.spec import ParameterSpec

__all__ = ["build_space", "load_suites", "make_suites", "space_faults"]


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
    return tuple(_suite(read_evaluator(name, presets, beside), name) for name in names)


def _suite(config: str | EvaluatorConfig, name: str) -> Suite:
    assert isinstance(config, EvaluatorConfig), "load_experiment inlines presets"
    apart = {"tasks", "include_path", "splits", "metrics", "generation_kwargs"}
    content = config.model_dump(exclude=apart)
    return Suite(
        name=name,
        tasks=tuple(config.tasks),
        include_path=Path(config.include_path) if config.include_path else None,
        metrics=config.metrics,
        splits=config.splits or ({"test": 1.0} if config.report_only else DEFAULT_SPLITS),  # type: ignore[arg-type]
        generation_kwargs=config.generation_kwargs,
        **content,
    )


@dataclass(frozen=True)
class _Kind:
    """What a kind of space is read into, checked by and built with."""

    spec: type[Any]
    faults: Callable[[Any, ModelSet], list[Fault]]
    build: Callable[[Any, ModelSet], SearchSpace]


_KINDS: Mapping[str, _Kind] = {
    "parameter": _Kind(ParameterSpec, spec_faults, ParameterSpace),
    "layer_swap": _Kind(LayerSwapSpec, swap_faults, layer_swap_space),
    "dataflow": _Kind(PathSpec, dataflow_faults, DataflowSpace),
    "hybrid": _Kind(HybridSpec, hybrid_faults, HybridSpace),
    "ensemble": _Kind(EnsembleSpec, ensemble_faults, EnsembleSpace),
}


def build_space(content: Mapping[str, Any], models: ModelSet) -> SearchSpace:
    """Build a search space from plain data.

    Args:
        content: The keys of a space file.
        models: What is mixed.

    Raises:
        ConfigError: Every fault, by the keys of the space.
    """
    if faults := space_faults(content, models):
        raise ConfigError(*faults)
    kind = _kind(content)
    return kind.build(parse(kind.spec, content), models)


def space_faults(content: Mapping[str, Any], models: ModelSet | None) -> list[Fault]:
    """List every fault of a space, by its keys: of the keys themselves, and with these models.

    Args:
        content: The keys of a space file.
        models: What is mixed, without layers if they could not be opened; ``None`` if not even
            their names are known.
    """
    faults: list[Fault] = []
    with collected(faults):
        kind = _kind(content)
        fitted = fit(kind.spec, content)
        faults += fitted.faults
        if fitted.value is not None and models is not None:
            faults += fitted.gaps.beside(kind.faults(fitted.value, models))
    return faults


def _kind(content: Mapping[str, Any]) -> _Kind:
    kind = content.get("kind", "parameter")
    if not isinstance(kind, str) or kind not in _KINDS:
        text = f"expected one of {', '.join(_KINDS)}, got {brief(kind)}"
        raise ConfigError(Fault(("kind",), text))
    return _KINDS[kind]
