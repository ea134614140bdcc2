"""mergekit YAML in and out.

What the other side lacks is an error that says so. The meaning of mergekit's settings was checked
against version 0.1.5.

Members:
    importing: mergekit content to recipe.
    exporting: recipe to mergekit text.
    stacking, unstacking: ``passthrough`` files as paths, and back.
    heads: models and dtype of a file.
    tokenizers: what it asks of tokenizer and chat template.
    file: the records of a mergekit file.
    keys: names of methods and parameters.
    values: settings evaluated for each tensor.
    rules: one rule per tensor, gathered into few.
    filters: one value per tensor, written with few filters.
"""

from __future__ import annotations

from evomerge.recipe.mergekit.exporting import to_mergekit
from evomerge.recipe.mergekit.importing import from_mergekit

__all__ = ["from_mergekit", "to_mergekit"]
