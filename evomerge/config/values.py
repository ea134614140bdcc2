"""How values of the experiment file are read: durations, switches, names, costs, bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.execution.costs import COST
from evomerge.study.constraints import parse_bound

__all__ = [
    "BoundText",
    "Duration",
    "ExpertName",
    "better",
    "by_name",
    "cost_as_metric",
    "switch",
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


def by_name(value: object) -> object:
    """Read a bare name as ``{name: …}``."""
    return {"name": value} if isinstance(value, str) else value


def switch(value: object) -> object:
    """Read ``on`` and ``off``, which YAML takes for booleans."""
    if not isinstance(value, bool | str):
        return value
    return {True: {}, False: None, "on": {}, "off": None}.get(value, value)


def cost_as_metric(value: object) -> object:
    """Read ``{cost: kl, reference: math}`` as ``{task: cost, metric: kl:math}``."""
    if not isinstance(value, Mapping) or "cost" not in value:
        return value
    if "task" in value or "metric" in value:
        raise ValueError("expected a task and a metric, or a cost, got both")
    rest = {key: part for key, part in value.items() if key not in ("cost", "reference")}
    name, reference = value["cost"], value.get("reference")
    return {"task": COST, "metric": f"{name}:{reference}" if reference else name, **rest}


def better(objective: dict[str, Any]) -> Literal["maximize", "minimize"]:
    """Tell which way a metric is better: less of every cost, and of some smooth metrics."""
    if objective.get("task") == COST:
        return "minimize"
    return SMOOTH_METRICS.get(objective.get("metric", ""), "maximize")


def _not_reserved(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"expected an expert name other than {', '.join(_RESERVED)}, got {name!r}")
    return name


_RESERVED = ("base", "merged", "skip", "uniform")  # what spaces and reports mean by these
ExpertName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$"),
    AfterValidator(_not_reserved),
]
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]


def _checked_bound(value: object) -> object:
    if not isinstance(value, (int, float, str)):
        raise ValueError(f"expected a number or a text such as 'base - 0.01', got {value!r}")
    parse_bound(value)
    return value


BoundText = Annotated[float | str, BeforeValidator(_checked_bound)]
