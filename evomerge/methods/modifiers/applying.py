"""Modifiers by name: checked, bound, and applied to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evomerge.errors import Fault, RecipeError, did_you_mean
from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import TensorContext
from evomerge.methods.declared import ParameterValue
from evomerge.methods.modifiers.base import Modifier
from evomerge.methods.modifiers.lines import Lines
from evomerge.methods.modifiers.sparsifiers import Magnitude, OutlierBand, RandomDrop, Ranked

__all__ = ["MODIFIERS", "apply_modifiers", "bind_modifiers", "modifier_faults"]

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


def apply_modifiers(plan: TensorPlan, modifiers: Modifiers, tensor: TensorContext) -> TensorPlan:
    """Change the plan that a method made of one tensor.

    Args:
        plan: What ``Method.lower`` returned.
        modifiers: Parameter values by name of modifier, in order of application.
        tensor: The tensor it was lowered for.

    Returns:
        The changed plan.

    Raises:
        RecipeError: A modifier is unknown or its parameters are wrong; the method merges models
            rather than task vectors; or it sparsifies by itself.
    """
    for modifier in bind_modifiers(modifiers, tensor.experts):
        plan = modifier.apply(plan, tensor)
    return plan
