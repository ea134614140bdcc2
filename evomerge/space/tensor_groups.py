"""Groups of tensors that follow from the models.

These are ``per_tensor``, the parts of mixtures, and the parts beside a tower.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace

from evomerge.models.architecture import LANGUAGE_KINDS, Kind
from evomerge.models.parts import OTHER_PARTS
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import MixturePart, Module, Named, ParameterSpec

__all__ = ["with_groups"]

_TOWER = frozenset(LANGUAGE_KINDS)


def with_groups(spec: ParameterSpec, models: ModelSet) -> ParameterSpec:
    """Write out the groups that follow from the models; most specs come back as they are.

    ``per_tensor``: tensors that are called alike but for the number of their layer are one group,
    such as ``self_attn_q_proj``; one outside the layers is a group of its own.

    Vision tower and projector, where they are merged, are groups of their own unless a group lists
    them, and groups that choose by name choose among the tensors of the language tower, if there
    are any: layers of the two towers have nothing to do with each other.

    ``{part: router}``: the tensors of a mixture's part; parts that the models lack are left out.

    Args:
        spec: May be without groups.
        models: Whose tensors they are.
    """
    spec = _with_mixtures(spec, models)
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
    listed = {kind for m in modules.values() if isinstance(m, tuple) for kind in m}
    found = {role.kind for role in models.roles.values()}
    for part in OTHER_PARTS:
        if part in found and part not in listed:
            yield part if part not in modules else f"other_{part}", (part,)


def _with_mixtures(spec: ParameterSpec, models: ModelSet) -> ParameterSpec:
    if spec.modules == "per_tensor":
        return spec
    written = {
        group: dict(_of_part(group, module, models))
        if isinstance(module, MixturePart)
        else {group: module}
        for group, module in spec.modules.items()
    }
    frozen = tuple(own for group in spec.frozen for own in written.get(group, [group]))
    modules = {name: own for groups in written.values() for name, own in groups.items()}
    is_plain = modules == spec.modules and frozen == spec.frozen
    return spec if is_plain else replace(spec, modules=modules, frozen=frozen)


def _of_part(group: str, module: MixturePart, models: ModelSet) -> Iterator[tuple[str, Module]]:
    """Name the tensors of a part, all together or those of each expert."""
    tails: dict[str, dict[str, None]] = defaultdict(dict)
    for name, role in models.roles.items():
        if role.part == module.part:
            own = _parted(name)[1]
            number = next((part for part in own if part.isdigit()), "")
            is_alone = module.each and number
            alike = [r"\d+" if p == number and not is_alone else re.escape(p) for p in own]
            tails[f"{group}_{number}" if is_alone else group][r"\.".join(alike)] = None
    for owner, found in tails.items():
        yield owner, Named(_in_any_layer(*found))


def _in_any_layer(*tails: str) -> str:
    inside = tails[0] if len(tails) == 1 else f"({'|'.join(tails)})"
    return rf"(^|\.)\d+\.{inside}$"


def _parted(name: str) -> tuple[bool, list[str]]:
    """Tell whether a tensor has the number of a layer, and what comes after that."""
    parts = name.split(".")
    layer = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return layer is not None, parts if layer is None else parts[layer + 1 :]
