"""``depth: {importance: N}`` becomes boundaries, worked out from the experts' task vectors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from evomerge.config.experiment import Experiment
from evomerge.errors import CheckpointError
from evomerge.space.importance import equal_groups, layer_importance

if TYPE_CHECKING:
    from evomerge.merging.sources import Sources

__all__ = ["layer_importances", "with_boundaries"]


def with_boundaries(experiment: Experiment) -> Experiment:
    """Group layers by importance where the space asks for it; the result spells the groups out.

    Reads every tensor the first time; statistics are cached. A space that asks for more groups than
    there are layers, or whose models cannot be opened, stays as it is for the checks to refuse.

    Args:
        experiment: With its space inlined.
    """
    space = experiment.search_space
    depth = space.get("depth") if isinstance(space, dict) else None
    n_groups = depth.get("importance") if isinstance(depth, Mapping) else None
    if not isinstance(space, dict) or not isinstance(n_groups, int):
        return experiment
    from evomerge.merging.sources import Sources  # only where it is needed: it takes seconds

    try:
        sources = Sources(
            experiment.models.base,
            experiment.models.experts,
            tokenizer=experiment.models.tokenizer,
            parts=experiment.models.parts,
        )
    except CheckpointError:
        return experiment
    if not 1 <= n_groups <= sources.architecture.n_layers:
        return experiment
    starts = equal_groups(layer_importances(sources), n_groups)
    resolved = {**space, "depth": {"boundaries": starts}}
    return experiment.model_copy(update={"search_space": resolved})


def layer_importances(sources: Sources) -> list[float]:
    """Rate every layer by the task vectors of its own tensors; see ``layer_importance``."""
    k, roles = len(sources.experts), sources.architecture.roles
    grams = np.zeros((sources.architecture.n_layers, k, k))
    for name in sources.names:
        if roles[name].in_layer:  # embeddings and head would outweigh layers
            grams[roles[name].layer] += sources.statistics(name).task_gram
            sources.forget(name)
    return [layer_importance(gram) for gram in grams]
