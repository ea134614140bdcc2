"""What an experiment comes to: size, memory, disk, sampler; printed by ``check``."""

from __future__ import annotations

import math

import torch

from evomerge.config.assemble import Assembly, sampler_choice
from evomerge.config.runs import worker_count
from evomerge.execution.costs import COSTS, Cost
from evomerge.merging.candidate import output_dtype
from evomerge.merging.sources import Sources
from evomerge.schema import write_yaml

__all__ = ["example_recipe", "experiment_facts"]

_MOST_RULES = 3  # that an example shows
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
        ("seeds", _seeds(assembly)),
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


def example_recipe(assembly: Assembly) -> str:
    """Decode a space's neutral genes, as YAML: method, place and parameters of the first rules."""
    rules = assembly.space.recipe(assembly.space.defaults).as_data()["rules"]
    more = len(rules) - _MOST_RULES
    text = write_yaml({"rules": rules[:_MOST_RULES]})
    return f"{text}# and {more} more rules\n" if more > 0 else text


def _cost(metric: str) -> str:
    return f"{metric} ({COSTS[Cost.of(metric).name]})"


def _seeds(assembly: Assembly) -> str:
    inside = [seed for seed in assembly.seeds if seed.params is not None]
    names = ", ".join(seed.origin for seed in assembly.seeds) or "none"
    return f"{names} ({len(inside)} of {len(assembly.seeds)} are points of the space)"


def _budget(assembly: Assembly) -> str:
    budget = assembly.experiment.budget
    limit = "" if budget.wall_clock is None else f", at most {budget.wall_clock:.0f} s"
    return f"{budget.trials} trials{limit}"


def _size(n_bytes: float) -> str:
    power = min(int(math.log10(max(n_bytes, 1)) // 3), len(_UNITS) - 1)
    return f"{n_bytes / 1000**power:.3g} {_UNITS[power]}"
