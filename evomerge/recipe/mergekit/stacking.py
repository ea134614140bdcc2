"""A mergekit ``passthrough`` file as a path: slices of models, one after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evomerge.errors import Fault, RecipeError
from evomerge.models.architecture import Architecture, TensorRole
from evomerge.models.branches import Branches, branches_of
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.reference import absolute_reference, resolve_model
from evomerge.recipe.mergekit.file import MergekitFile, Slice
from evomerge.recipe.mergekit.heads import (
    all_filters,
    expert_names,
    recipe_dtype,
)
from evomerge.recipe.mergekit.keys import SCALE
from evomerge.recipe.mergekit.rules import gather_rules
from evomerge.recipe.mergekit.tokenizers import tokenizer_choice
from evomerge.recipe.mergekit.values import value_for
from evomerge.recipe.path import BASE, MERGED, Hop
from evomerge.recipe.recipe import Recipe, Rule

__all__ = ["stacked"]

_Factors = Mapping[str, float]  # by tensor name: what ``scale`` multiplies it by


@dataclass(frozen=True)
class _Visit:
    """One layer of the stack.

    Attributes:
        source: Expert name.
        layer: Its layer there.
        factors: Of that layer's tensors.
    """

    source: str
    layer: int
    factors: _Factors


def stacked(file: MergekitFile, *, beside: Path) -> Recipe:
    """Turn a ``passthrough`` file into a recipe with a path.

    ``scale`` on what writes the residual stream (``o_proj`` and ``down_proj`` alike) becomes the
    hops' input scales. Any other scaled layer becomes a ``merged`` layer whose rules scale it, so
    one layer index can be scaled in one such way only.

    Args:
        file: As ``read_file`` returns it.
        beside: Relative model folders start here.

    Raises:
        RecipeError: The file means something that a recipe cannot say.
        CheckpointError: The model that lends its tensor names cannot be opened.
    """
    experts = _experts(file)
    base = file.base_model if file.base_model not in experts else None
    anchor = base or next(iter(experts))
    checkpoint = Checkpoint(resolve_model(absolute_reference(anchor, beside)))
    architecture = Architecture(checkpoint.config, checkpoint.names)
    roles = architecture.roles
    visits = list(_visits(file, experts, architecture))
    path, variants = _path(visits, branches_of(checkpoint.config.get("model_type")))
    rules = {
        name: _rule(*_origin(file, experts, variants, name, role), tuple(experts.values()))
        for name, role in roles.items()
    }
    recipe = Recipe(
        experts={name: absolute_reference(model, beside) for model, name in experts.items()},
        rules=gather_rules(rules, roles, all_filters(file)),
        base=None if base is None else absolute_reference(base, beside),
        dtype=recipe_dtype(file),
        tokenizer=tokenizer_choice(file, experts, base),
        path=path,
    )
    if faults := recipe.faults():
        raise RecipeError(*map(str, faults))
    return recipe


def _experts(file: MergekitFile) -> dict[str, str]:
    """Name the stacked models; the one that lends config and tokenizer comes first."""
    for position, piece in enumerate(file.slices):
        if len(piece.sources) != 1:
            text = f"expected one source, as passthrough copies layers, got {len(piece.sources)}"
            raise RecipeError(Fault(("slices", position), text))
        if piece.base_model not in (None, file.base_model):
            text = f"expected none, as passthrough reads no base, got {piece.base_model!r}"
            raise RecipeError(Fault(("slices", position, "base_model"), text))
    models = dict.fromkeys(piece.sources[0].model for piece in file.slices)
    ordered = sorted(models, key=lambda model: model != file.base_model)
    return expert_names(ordered, reserved=(BASE, MERGED))


def _visits(
    file: MergekitFile, experts: Mapping[str, str], architecture: Architecture
) -> Iterator[_Visit]:
    """List the layers of the stack, from the first to the last."""
    names: dict[int, list[str]] = {}
    for name, role in architecture.roles.items():
        if role.in_layer:
            names.setdefault(role.layer, []).append(name)
    for position, piece in enumerate(file.slices):
        source = piece.sources[0]
        start, stop = source.layer_range or (0, architecture.n_layers)
        if not 0 <= start < stop <= architecture.n_layers:
            text = (
                f"expected a layer_range within the models' "
                f"{architecture.n_layers} layers, got [{start}, {stop}]"
            )
            raise RecipeError(Fault(("slices", position), text))
        for layer in range(start, stop):
            # A gradient runs from the first to the last layer; a slice of one layer takes its end.
            t = (layer - start) / (stop - start - 1) if stop - start > 1 else 1.0
            factors = {name: _factor(file, piece, name, t) for name in names[layer]}
            yield _Visit(experts[source.model], layer, factors)


def _factor(file: MergekitFile, piece: Slice, name: str, t: float) -> float:
    scopes = (piece.sources[0].parameters, piece.parameters, file.parameters)
    return float(value_for(scopes, SCALE, name, t, 1.0))


def _path(
    visits: list[_Visit], branches: Branches | None
) -> tuple[tuple[Hop, ...], dict[int, _Visit]]:
    """Find the hops, and by layer what a ``merged`` layer has to be."""
    path: list[Hop] = []
    variants: dict[int, _Visit] = {}
    before = 1.0
    for visit in visits:
        product = _stream_scale(visit.factors, branches)
        if product is None:
            if variants.setdefault(visit.layer, visit) != visit:
                raise RecipeError(
                    f"expected layer {visit.layer} to be scaled in one way only, "
                    f"got two, of {variants[visit.layer].source} and {visit.source}; a recipe "
                    "has one merged layer for each index"
                )
            path.append(Hop(MERGED, visit.layer, 1.0 / before))
            before = 1.0
        else:
            path.append(Hop(visit.source, visit.layer, product / before))
            before = product
    return tuple(path), variants


def _stream_scale(factors: _Factors, branches: Branches | None) -> float | None:
    """Find the product of input scales that folds to these factors; ``None`` if there is none."""
    if all(factor == 1 for factor in factors.values()):
        return 1.0
    changed = next(factor for factor in factors.values() if factor != 1)
    if branches is None or changed <= 0:
        return None
    for product in (1 / changed, changed):
        folds = {name: branches.fold(name, product) for name in factors}
        if all(offset == 0 or fold == 1 for fold, offset in folds.values()) and all(
            math.isclose(folds[name][0], factor, rel_tol=1e-9) for name, factor in factors.items()
        ):
            return product
    return None


def _origin(
    file: MergekitFile,
    experts: Mapping[str, str],
    variants: Mapping[int, _Visit],
    name: str,
    role: TensorRole,
) -> tuple[str, float]:
    """Find whose tensor it is outside the hops that are copied, and what it is multiplied by."""
    if role.in_layer and role.layer in variants:
        visit = variants[role.layer]
        return visit.source, visit.factors[name]
    piece = file.slices[0 if role.kind == "embedding" or role.in_layer else -1]
    factor = 1.0 if role.in_layer else _factor(file, piece, name, 0.0)
    return experts[piece.sources[0].model], factor


def _rule(source: str, factor: float, experts: tuple[str, ...]) -> Rule:
    mix = {expert: factor if expert == source else 0.0 for expert in experts}
    return Rule("linear", {"coefficient": mix, "normalize": factor == 1.0})
