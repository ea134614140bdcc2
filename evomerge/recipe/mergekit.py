"""mergekit YAML in and out.

A recipe is the wider of the two formats, so the way in fails on what mergekit does with layers
(repeating, reordering) and the way out on recipes that mix methods.
"""

from __future__ import annotations

from evomerge.recipe.mergekit_export import to_mergekit
from evomerge.recipe.mergekit_import import from_mergekit

__all__ = ["from_mergekit", "to_mergekit"]
