"""Encodings by their options."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.recipe.path import Hop
from evomerge.space.dataflow.encoding import Encoding, Layout
from evomerge.space.dataflow.permutation import Permutation, PermutationEncoding
from evomerge.space.dataflow.slices import Slices, SlicesEncoding
from evomerge.space.dataflow.slots import Slots, SlotsEncoding
from evomerge.space.dataflow.spec import EncodingOptions
from evomerge.space.dataflow.threshold import Threshold, ThresholdEncoding

__all__ = ["build_encoding"]


def build_encoding(options: EncodingOptions, layout: Layout, initial: Sequence[Hop]) -> Encoding:
    """Build an encoding.

    Args:
        options: Which, and its own options.
        layout: What it works with.
        initial: The body that its initial values give, if it can express it.
    """
    match options:
        case Threshold():
            return ThresholdEncoding(options, layout, initial)
        case Slots():
            return SlotsEncoding(options, layout, initial)
        case Permutation():
            return PermutationEncoding(options, layout, initial)
        case Slices():
            return SlicesEncoding(options, layout, initial)
