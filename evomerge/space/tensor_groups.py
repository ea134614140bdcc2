"""Module groups that only the models can tell, written out as groups by name.

``modules: per_tensor`` is a group for each tensor of a layer; ``{part: router}`` are the tensors of
a mixture's routers. Either is so whatever the architecture.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

from evomerge.models.architecture import KINDS
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import MixturePart, Module, Named, ParameterSpec

__all__ = ["with_groups"]


def with_groups(spec: ParameterSpec, models: ModelSet) -> ParameterSpec:
    """Write out the groups of a spec by name.

    With ``per_tensor``, tensors that are called alike but for the number of their layer are one
    group, such as ``self_attn_q_proj``; one outside the layers is a group of its own. Parts that
    the models do not have are left out.

    Args:
        spec: May be without groups.
        models: Whose tensors they are.
    """
    if spec.modules == "per_tensor":
        groups: dict[str, Module] = dict(_groups(models))
        return replace(spec, modules={**groups, "other": KINDS})
    written = {
        group: dict(_of_part(group, module, models))
        if isinstance(module, MixturePart)
        else {group: module}
        for group, module in spec.modules.items()
    }
    frozen = tuple(own for group in spec.frozen for own in written.get(group, [group]))
    modules = {name: own for groups in written.values() for name, own in groups.items()}
    return replace(spec, modules=modules, frozen=frozen)


def _groups(models: ModelSet) -> Iterator[tuple[str, Module]]:
    for name in models.roles:
        in_layer, own = _parted(name)
        tail = re.escape(".".join(own))
        pattern = _in_any_layer(tail) if in_layer else f"^{tail}$"
        yield "_".join(part for part in own if part != "weight"), Named(pattern)


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
    for owner, alike in tails.items():
        yield owner, Named(_in_any_layer(*alike))


def _in_any_layer(*tails: str) -> str:
    inside = tails[0] if len(tails) == 1 else f"({'|'.join(tails)})"
    return rf"(^|\.)\d+\.{inside}$"


def _parted(name: str) -> tuple[bool, list[str]]:
    """Tell whether a tensor has the number of a layer, and what comes after that."""
    parts = name.split(".")
    layer = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return layer is not None, parts if layer is None else parts[layer + 1 :]
