"""``modules: per_tensor``: a group for each tensor of a layer, whatever the architecture."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from evomerge.models.architecture import KINDS
from evomerge.space.protocol import ModelSet
from evomerge.space.spec import Module, Named, ParameterSpec

__all__ = ["with_groups"]


def with_groups(spec: ParameterSpec, models: ModelSet) -> ParameterSpec:
    """Write ``per_tensor`` out as groups by name; other specs come back as they are.

    Tensors that are called alike but for the number of their layer are one group, such as
    ``self_attn_q_proj``; one outside the layers is a group of its own.

    Args:
        spec: May be without groups.
        models: Whose tensors they are.
    """
    if spec.modules != "per_tensor":
        return spec
    groups: dict[str, Module] = dict(_groups(models))
    return replace(spec, modules={**groups, "other": KINDS})


def _groups(models: ModelSet) -> Iterator[tuple[str, Module]]:
    for name in models.roles:
        parts = name.split(".")
        layer = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        own = parts if layer is None else parts[layer + 1 :]
        tail = re.escape(".".join(own))
        pattern = f"^{tail}$" if layer is None else rf"(^|\.)\d+\.{tail}$"
        yield "_".join(part for part in own if part != "weight"), Named(pattern)
