"""Modules that share parameters and differ in something else: copies that cost no memory."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["twin"]

# What would otherwise be changed in both.
_OWN = (
    "_modules",
    "_parameters",
    "_forward_hooks",
    "_forward_hooks_always_called",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


def twin(module: nn.Module, paths: Iterable[str] = ()) -> nn.Module:
    """Copy a module and some of the modules in it; parameters, buffers and the rest are shared.

    Args:
        module: Left as it is.
        paths: Modules inside that get copies of their own, dotted; those around them do, too.

    Returns:
        A module whose attributes, hooks and parameters can be replaced without effect on the first.
    """
    copy = object.__new__(type(module))
    vars(copy).update(vars(module))
    for name in _OWN:
        vars(copy)[name] = vars(module)[name].copy()
    inside: dict[str, list[str]] = {}
    for path in paths:
        if path:
            child, _, rest = path.partition(".")
            inside.setdefault(child, []).append(rest)
    for child, rests in inside.items():
        setattr(copy, child, twin(module.get_submodule(child), rests))
    return copy
