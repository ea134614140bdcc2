"""Experiments on the family of SmolLM2, with what was asked for on the command line.

They are read in processes that are started anew, too, which cannot import a ``__main__``.
"""

from __future__ import annotations

import argparse

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs.loaded import Loaded

__all__ = ["load"]


def load(chosen: argparse.Namespace, name: str, *changes: str, items: int | None = None) -> Loaded:
    """Read an experiment with the items and workers that were chosen."""
    limit = items or chosen.limit
    overrides = [
        *changes,
        *chosen.set,
        f"evaluators[0].limit={limit}",
        f"execution.workers={chosen.workers}",
    ]
    if chosen.workers == 1:
        overrides.append("execution.executor=inline")
    presets = Presets()
    path = presets.names("experiments")[name]
    return Loaded.of(load_experiment(path, presets, overrides))
