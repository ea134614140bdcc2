"""How values of the experiment file are read: durations, switches, names, costs, bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from evomerge.errors import brief
from evomerge.evaluation.reasoning import ReasoningChoice
from evomerge.evaluation.scores import SMOOTH_METRICS
from evomerge.execution.costs import COST
from evomerge.study.constraints import parse_bound

__all__ = [
    "RESERVED",
    "AutoOrCount",
    "BoundText",
    "Duration",
    "ExpertName",
    "MetricName",
    "RandomSeed",
    "Reasoning",
    "TimeLimit",
    "better",
    "by_name",
    "cost_as_metric",
    "named",
    "switch",
]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_LONGEST_DURATION = 50  # characters
_LONGEST_WAIT = 10 * 365 * 86400.0  # seconds; a slip beyond
_MOST_AT_ONCE = 10_000  # workers, or sequences of a batch: beyond any cluster, and any memory
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """Read ``90``, ``90s``, ``10m``, ``2h`` or ``1h 30m`` as seconds."""
    if not isinstance(value, str):
        return value
    parts = _DURATION.findall(value) if len(value) <= _LONGEST_DURATION else []
    if not parts or _DURATION.sub("", value).strip():
        raise ValueError(f"expected a duration such as 90s, 10m or 2h, got {brief(value)}")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _time_limit(value: object) -> object:
    """Read ``auto``, ``off``, which YAML takes for a boolean, or a duration."""
    if value is False:
        return "off"
    try:
        if value is True or not isinstance(value, (int, float, str)):
            raise ValueError  # as below
        return value if value in ("auto", "off") else _seconds(value)
    except ValueError:
        wanted = "auto, off, or a duration such as 90s, 10m or 2h"
        raise ValueError(f"expected {wanted}, got {brief(value)}") from None


def by_name(value: object) -> object:
    """Read a bare name as ``{name: …}``."""
    return {"name": value} if isinstance(value, str) else value


def switch(value: object) -> object:
    """Read ``on`` and ``off``, which YAML takes for booleans."""
    return named(value, {"on": {}, "off": None, True: {}, False: None})


def named(value: object, known: Mapping[bool | str, object]) -> object:
    """Read the name of a set of rules; anything but a name is the rules themselves."""
    if not isinstance(value, bool | str):
        return value
    if value not in known:
        names = ", ".join(name for name in known if isinstance(name, str))
        raise ValueError(f"expected {names}, or keys and values, got {brief(value)}")
    return known[value]


def cost_as_metric(value: object) -> object:
    """Read ``{cost: kl, reference: math}`` as ``{task: cost, metric: kl:math}``."""
    if not isinstance(value, Mapping) or "cost" not in value:
        return value
    if "task" in value or "metric" in value:
        raise ValueError("expected a task and a metric, or a cost, got both")
    rest = {key: part for key, part in value.items() if key not in ("cost", "reference")}
    name, reference = value["cost"], value.get("reference")
    return {"task": COST, "metric": f"{name}:{reference}" if reference else name, **rest}


def _without_none(metric: str) -> str:
    return metric.removesuffix(",none")


MetricName = Annotated[str, AfterValidator(_without_none)]
"""A metric, or ``METRIC,FILTER``; lm-eval's results write the filter ``none``, too."""


def _reasoning(value: object) -> object:
    """Read ``auto``, ``keep`` or a pair of tags."""
    match value:
        case "auto" | "keep":
            return value
        case [str(start), str(end)] if start and end:
            return value
    wanted = "auto, keep, or the two tags around reasoning such as [<think>, </think>]"
    raise ValueError(f"expected {wanted}, got {brief(value)}")


Reasoning = Annotated[ReasoningChoice, BeforeValidator(_reasoning)]


def better(objective: dict[str, Any]) -> Literal["maximize", "minimize"]:
    """Tell which way a metric is better: less of every cost, and of some smooth metrics."""
    if objective.get("task") == COST:
        return "minimize"
    return SMOOTH_METRICS.get(objective.get("metric", ""), "maximize")


def _expert_name(name: str) -> str:
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(f"expected an expert name of letters, digits, _ and -, got {name!r}")
    if name in RESERVED:
        raise ValueError(f"expected an expert name other than {', '.join(RESERVED)}, got {name!r}")
    return name


RESERVED = ("base", "merged", "skip", "uniform")
"""What spaces and reports mean by these is no expert."""
ExpertName = Annotated[str, AfterValidator(_expert_name)]


def _auto_or_count(value: object) -> object:
    if value == "auto":
        return value
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"expected auto or a whole number above 0, got {brief(value)}")
    if value > _MOST_AT_ONCE:
        raise ValueError(f"expected auto or at most {_MOST_AT_ONCE:,}, got {brief(value)}")
    return value


AutoOrCount = Annotated[int | Literal["auto"], BeforeValidator(_auto_or_count)]
Duration = Annotated[float, BeforeValidator(_seconds), Field(gt=0, le=_LONGEST_WAIT)]
TimeLimit = Annotated[Literal["auto", "off"] | Duration, BeforeValidator(_time_limit)]
RandomSeed = Annotated[int, Field(ge=-(2**63), lt=2**63)]


def _checked_bound(value: object) -> object:
    if not isinstance(value, (int, float, str)):
        raise ValueError(f"expected a number or a text such as 'base - 0.01', got {brief(value)}")
    parse_bound(value)
    return value


BoundText = Annotated[float | str, BeforeValidator(_checked_bound)]
