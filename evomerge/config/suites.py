"""The task suites of an experiment, and those that the command line names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evomerge.config.experiment import EvaluatorConfig, Experiment
from evomerge.config.load import resolve_evaluator
from evomerge.config.presets import Presets
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.evaluation.suite import DEFAULT_SPLITS, Suite

__all__ = ["load_suites", "make_suites"]


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
