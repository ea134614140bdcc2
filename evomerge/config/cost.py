"""What an experiment comes to: size, memory, disk, sampler; printed by ``check``."""

from __future__ import annotations

import math

import torch

from evomerge.config.assemble import Assembly, sampler_choice
from evomerge.config.runs import worker_count
from evomerge.execution.costs import COSTS, Cost
from evomerge.merging.candidate import output_dtype
from evomerge.merging.sources import Sources

__all__ = ["experiment_facts"]

_UNITS = ("B", "kB", "MB", "GB", "TB")


def experiment_facts(assembly: Assembly) -> list[tuple[str, str]]:
    """Describe an experiment in lines of (name, value).

    Args:
        assembly: A checked experiment.
    """
    experiment, models = assembly.experiment, assembly.models
    sources = Sources(models.base, models.experts)
    shapes = sources.anchor.shapes()
    n_parameters = sum(math.prod(shape) for shape in shapes.values())
    dtype = output_dtype(sources, models.dtype)
    candidate_bytes = n_parameters * torch.empty((), dtype=dtype).element_size()
    n_files = 1 + len(models.experts)
    n_workers = worker_count(experiment.execution)
    name, reason = sampler_choice(assembly)
    objectives = ", ".join(f"{o.direction} {o.name} {o.metric}" for o in assembly.objectives)
    optional = {
        "constraints": ", ".join(constraint.name for constraint in assembly.constraints),
        "costs": ", ".join(map(_cost, assembly.worker.costs)),
    }
    return [
        ("models", f"{n_parameters / 1e6:.2f}M parameters, {models.n_layers} layers, {dtype}"),
        ("objectives", objectives),
        *((name, text) for name, text in optional.items() if text),
        ("sampler", f"{name}: {reason}"),
        ("budget", _budget(assembly)),
        ("workers", f"{n_workers}, {experiment.execution.executor}"),
        (
            "memory",
            f"{_size(n_files * candidate_bytes)} of mapped files shared by all workers, "
            f"{_size(candidate_bytes)} of live model for each of {n_workers}",
        ),
        ("disk", f"{_size(candidate_bytes)} per export; nothing per trial but item scores"),
    ]


def _cost(metric: str) -> str:
    return f"{metric} ({COSTS[Cost.of(metric).name]})"


def _budget(assembly: Assembly) -> str:
    budget = assembly.experiment.budget
    limit = "" if budget.wall_clock is None else f", at most {budget.wall_clock:.0f} s"
    return f"{budget.trials} trials{limit}"


def _size(n_bytes: float) -> str:
    power = min(int(math.log10(max(n_bytes, 1)) // 3), len(_UNITS) - 1)
    return f"{n_bytes / 1000**power:.3g} {_UNITS[power]}"
