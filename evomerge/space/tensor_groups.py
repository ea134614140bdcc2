"""Groups of tensors that follow from the models: ``per_tensor``, and the parts beside a tower."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from evomerge.models.architecture import LANGUAGE_KINDS, Kind
from evomerge.models.parts import OTHER_PARTS
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import Module, Named, ParameterSpec

__all__ = ["with_groups"]

_TOWER = frozenset(LANGUAGE_KINDS)


def with_groups(spec: ParameterSpec, models: ModelSet) -> ParameterSpec:
    """Write out the groups that follow from the models; most specs come back as they are.

    ``per_tensor``: tensors that are called alike but for the number of their layer are one group,
    such as ``self_attn_q_proj``; one outside the layers is a group of its own.

    Vision tower and projector, where they are merged, are groups of their own unless a group lists
    them, and groups that choose by name choose among the tensors of the language tower, if there
    are any: layers of the two towers have nothing to do with each other.

    Args:
        spec: May be without groups.
        models: Whose tensors they are.
    """
    modules: Mapping[str, Module] = (
        {**_groups(models), "other": LANGUAGE_KINDS}
        if spec.modules == "per_tensor"
        else spec.groups
    )
    if any(role.kind in OTHER_PARTS for role in models.roles.values()):
        modules = {name: _in_tower(module, models) for name, module in modules.items()}
        modules |= dict(_other_parts(modules, models))
    return spec if modules == spec.modules else replace(spec, modules=modules)


def _groups(models: ModelSet) -> dict[str, Module]:
    return dict(_named_groups([n for n, r in models.roles.items() if r.kind in LANGUAGE_KINDS]))


def _named_groups(tensors: list[str]) -> Iterator[tuple[str, Module]]:
    for name in tensors:
        parts = name.split(".")
        layer = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        own = parts if layer is None else parts[layer + 1 :]
        tail = re.escape(".".join(own))
        pattern = f"^{tail}$" if layer is None else rf"(^|\.)\d+\.{tail}$"
        yield "_".join(part for part in own if part != "weight"), Named(pattern)


def _in_tower(module: Module, models: ModelSet) -> Module:
    if not isinstance(module, Named):
        return module
    with suppress(re.error):  # a fault that is found elsewhere
        if {r.kind for n, r in models.roles.items() if re.search(module.names, n)} & _TOWER:
            return replace(module, kinds=LANGUAGE_KINDS)
    return module


def _other_parts(
    modules: Mapping[str, Module], models: ModelSet
) -> Iterator[tuple[str, tuple[Kind, ...]]]:
    listed = {kind for m in modules.values() if not isinstance(m, Named) for kind in m}
    found = {role.kind for role in models.roles.values()}
    for part in OTHER_PARTS:
        if part in found and part not in listed:
            yield part if part not in modules else f"other_{part}", (part,)
