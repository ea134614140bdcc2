"""The experiment file: its keys and their types."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from evomerge.evaluation.gates import Gates
from evomerge.evaluation.racing import RaceRules
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.models.reference import ModelRef
from evomerge.recipe.recipe import Dtype

__all__ = [
    "BudgetConfig",
    "EvaluatorConfig",
    "ExecutionConfig",
    "Experiment",
    "ModelsConfig",
    "ObjectiveConfig",
    "SamplerConfig",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """Read ``90``, ``90s``, ``10m``, ``2h`` or ``1h 30m`` as seconds."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.findall(value)
    if not parts or _DURATION.sub("", value).strip():
        raise ValueError(f"expected a duration such as 90s, 10m or 2h, got {value!r}")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _by_name(value: object) -> object:
    """Read a bare name as ``{name: …}``."""
    return {"name": value} if isinstance(value, str) else value


def _switch(value: object) -> object:
    """Read ``on`` and ``off``, which YAML takes for booleans."""
    if not isinstance(value, bool | str):
        return value
    return {True: {}, False: None, "on": {}, "off": None}.get(value, value)


_RACES: dict[object, object] = {
    "off": None,
    False: None,  # what YAML takes ``off`` for
    "careful": {},
    "fast": {"error_rate": 0.1, "tolerance": 0.5},
}


def _race(value: object) -> object:
    """Read ``off``, ``careful`` or ``fast``."""
    return _RACES.get(value, value) if isinstance(value, bool | str) else value


def _better(objective: dict[str, Any]) -> Literal["maximize", "minimize"]:
    """Tell which way a metric is better."""
    return SMOOTH_METRICS.get(objective.get("metric", ""), "maximize")


ExpertName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelsConfig(_Section):
    """What is mixed.

    Attributes:
        base: Model reference of the common ancestor.
        experts: Model, adapter or delta by expert name.
        dtype: Dtype of candidates and exports; absent: the base's.
    """

    base: str
    experts: dict[ExpertName, ModelRef] = Field(min_length=1)
    dtype: Dtype | None = None


class EvaluatorConfig(_Section):
    """A task suite; see ``evaluation.suite.Suite`` for the meaning of the keys."""

    tasks: list[str] = Field(min_length=1)
    include_path: str | None = None
    splits: dict[Literal["search", "validation", "test"], str | float] | None = None
    limit: int | None = Field(default=None, gt=0)
    num_fewshot: int | None = Field(default=None, ge=0)
    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    allow_code: bool = False
    seed: int = 0


class ObjectiveConfig(_Section):
    """One metric of one task; ``direction`` is ``maximize`` unless less is better by definition."""

    task: str
    metric: str
    direction: Literal["maximize", "minimize"] = Field(default_factory=_better)


class SamplerConfig(BaseModel):
    """A sampler by name; the other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "auto"

    @property
    def options(self) -> dict[str, float | int | str | bool]:
        """The sampler's own options."""
        return dict(self.model_extra or {})


class BudgetConfig(_Section):
    """When the search ends."""

    trials: int = Field(default=100, gt=0)
    wall_clock: Duration | None = None


class ExecutionConfig(_Section):
    """Where candidates run.

    Attributes:
        executor: ``ray`` or ``inline``.
        workers: Number of workers; ``auto``: one per GPU, else one per core.
        gpus_per_worker: Only where there are GPUs.
        ray_address: ``local``, or the address of a running cluster.
    """

    executor: Literal["ray", "inline"] = "ray"
    workers: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    gpus_per_worker: float = Field(default=1, ge=0)
    ray_address: str = "local"


class Experiment(_Section):
    """An experiment as written in YAML.

    Attributes:
        models: What is mixed.
        search_space: Preset name, path, or the space itself.
        evaluators: Preset names, paths, or the suites themselves.
        objectives: What the search trades off; at least one.
        sampler: How it searches.
        budget: When it ends.
        execution: Where it runs.
        gates: When a broken candidate is given up early: ``on``, ``off``, or settings.
        race: When a trial that will hardly enter the front is dropped: ``off``, ``careful``,
            ``fast``, or settings.
        allow_test_split: Search items by which public benchmarks are reported; the model card says
            that their scores mean nothing.
        finalists: How many front members are scored again on ``validation``; 0 skips the finals.
        storage: Database URL for studies shared by several machines; absent: a journal file.
        seed: Names every random draw.
    """

    models: ModelsConfig
    search_space: str | dict[str, Any]
    evaluators: list[str | EvaluatorConfig] = Field(min_length=1)
    objectives: list[ObjectiveConfig] = Field(min_length=1)
    sampler: Annotated[SamplerConfig, BeforeValidator(_by_name)] = SamplerConfig()
    budget: BudgetConfig = BudgetConfig()
    execution: ExecutionConfig = ExecutionConfig()
    gates: Annotated[Gates | None, BeforeValidator(_switch)] = Gates()
    race: Annotated[RaceRules | None, BeforeValidator(_race)] = None
    allow_test_split: bool = False
    finalists: int = Field(default=8, ge=0)
    storage: str | None = None
    seed: int = 0
