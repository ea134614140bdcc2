"""Modifiers by name: checked and bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.errors import Fault, RecipeError, did_you_mean
from evomerge.methods.declared import ParameterValue
from evomerge.methods.modifiers.base import Modifier
from evomerge.methods.modifiers.lines import Lines
from evomerge.methods.modifiers.sparsifiers import Magnitude, OutlierBand, RandomDrop, Ranked

__all__ = ["MODIFIERS", "bind_modifiers", "modifier_faults"]

Modifiers = Mapping[str, Mapping[str, ParameterValue]]

MODIFIERS: Mapping[str, type[Modifier]] = {
    kind.name: kind for kind in (Lines, Magnitude, OutlierBand, RandomDrop, Ranked)
}


def modifier_faults(modifiers: Modifiers, experts: Sequence[str]) -> list[Fault]:
    """List what is wrong with the modifiers of a rule; empty if all is well.

    Whether they fit the method shows only when a tensor is lowered.
    """
    found: list[Fault] = []
    for name, values in modifiers.items():
        if name in MODIFIERS:
            faults = MODIFIERS[name].faults(values, experts)
            found += [fault.under("modifiers", name) for fault in faults]
            continue
        hint = did_you_mean(name, MODIFIERS)
        text = f"expected one of {', '.join(MODIFIERS)}, got {name!r}{hint}"
        found.append(Fault(("modifiers", name), text))
    return found


def bind_modifiers(modifiers: Modifiers, experts: Sequence[str]) -> tuple[Modifier, ...]:
    """Check the modifiers of a rule and fill in defaults, in the order written.

    Raises:
        RecipeError: Every fault.
    """
    if faults := modifier_faults(modifiers, experts):
        raise RecipeError(*faults)
    return tuple(MODIFIERS[name].bind(values, experts) for name, values in modifiers.items())
