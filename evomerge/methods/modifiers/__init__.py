"""Modifiers: changes to a method's plan that compose with any method that adds task vectors.

``lines`` scales the merged task vector by depth. The sparsifiers decide what is kept of each task
vector before the method combines them, for methods that keep everything by themselves. To add one,
write a ``Modifier`` and list it in ``applying.MODIFIERS``.

Members:
    base: ``Modifier``, what they have in common.
    lines: layer scaling.
    sparsifiers: trims and random drops.
    applying: names to classes, and checks.
"""

from evomerge.methods.modifiers.applying import (
    MODIFIERS,
    bind_modifiers,
    modifier_faults,
)
from evomerge.methods.modifiers.base import Modifier

__all__ = ["MODIFIERS", "Modifier", "bind_modifiers", "modifier_faults"]
