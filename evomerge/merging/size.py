"""How large a merged model is: decoder layers run, parameters of its export."""

from __future__ import annotations

import math

from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe

__all__ = ["layers_run", "n_parameters"]


def layers_run(recipe: Recipe, n_layers: int) -> tuple[int, ...]:
    """List the source layer of every decoder layer that the merged model runs, in order.

    Args:
        recipe: With a data-flow path or without one.
        n_layers: Decoder layers of its models.
    """
    return tuple(hop.layer for hop in recipe.path) or tuple(range(n_layers))


def n_parameters(layers: tuple[int, ...], sources: Sources) -> int:
    """Count the parameters of an export: each run of a layer is a copy, tied tensors count once.

    Args:
        layers: As ``layers_run`` lists them.
        sources: The models.
    """
    outside, per_layer = 0, [0] * sources.architecture.n_layers
    for name in (*sources.names, *sources.lent_names):
        role, size = sources.architecture.roles[name], math.prod(sources.anchor.shape(name))
        if role.in_layer:
            per_layer[role.layer] += size
        else:
            outside += size
    return outside + sum(per_layer[layer] for layer in layers)
