"""Finds the scales of the smooth surrogates, once per set of measurements; takes minutes.

``python -m tests.benchmarks.landscapes.scales [SPACE]...`` adds them to ``measured/SPACE.json``.
"""

from __future__ import annotations

import json
import sys
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs.loaded import Loaded
from evomerge.samplers import GeneSpace
from tests.benchmarks.landscapes.collect import MEASURED, SPACES, write
from tests.benchmarks.landscapes.landscape import encoded, logits, smooth_surrogate


def add_scales(name: str) -> None:
    """Fit one Gaussian process per task and keep its scales beside the measurements."""
    measured = json.loads((MEASURED / f"{name}.json").read_text())
    experiment = Presets().names("experiments")["quickstart"]
    space = Loaded.of(load_experiment(experiment, Presets(), [f"search_space={name}"])).space
    genes = GeneSpace(space.distributions, space.defaults, space.depths)
    rows = [dict(zip(measured["genes"], values, strict=True)) for values, _ in measured["rows"]]
    points = np.array([encoded(row, genes) for row in rows])
    accuracies = np.array([scores for _, scores in measured["rows"]])
    found = []
    for values in logits(accuracies).T:
        surrogate = smooth_surrogate(None, points.shape[1])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a gene without effect is fine
            surrogate.fit(points, values)
        found.append([round(float(scale), 4) for scale in surrogate.kernel_.theta])
    write(name, {**measured, "scales": found})


if __name__ == "__main__":
    for space_name in sys.argv[1:] or SPACES:
        add_scales(space_name)
