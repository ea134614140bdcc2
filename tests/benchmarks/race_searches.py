"""Real searches of the embedded models, with races and without; a minute or two each.

They are kept under ``runs/benchmarks/races``: what is there is not run again, what was interrupted
is resumed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evomerge.analysis.front import hypervolume, hypervolume_history
from evomerge.analysis.status import items_saved
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord
from tests.benchmarks.studies import load_quickstart, run_study

__all__ = ["compare", "search"]

FloatArray = NDArray[np.float64]

_N_TRIALS = 60
_FOLDER = Path("runs/benchmarks/races")
_OBJECTIVES = (
    "{task: zoo_math, metric: exact_match}",
    "{task: zoo_list, metric: exact_match}",
    "{task: zoo_facts, metric: acc}",
)


def search(
    n_objectives: int, race: str, seed: int, n_trials: int
) -> tuple[StudyRecord, StudyFolder]:
    """Run the quickstart with some of its objectives, or read what an earlier call ran.

    Args:
        n_objectives: 1 to 3, in the order of the quickstart.
        race: As in YAML.
        seed: Of the study.
        n_trials: Its budget.
    """
    name = "".join(c for c in race if c.isalnum() or c in ".-")
    folder = StudyFolder(_FOLDER / f"{n_objectives}-{name}-{n_trials}-{seed}")
    overrides = [
        f"objectives=[{', '.join(_OBJECTIVES[:n_objectives])}]",
        f"race={race}",
        f"seed={seed}",
        f"budget.trials={n_trials}",
        "execution.executor=inline",
        "finalists=0",
    ]
    return run_study(load_quickstart(overrides), folder), folder


def compare(n_seeds: int) -> None:
    """Search with races and without, and print what became of either.

    A search without races that ends when as many items are scored shows whether races pay.

    Args:
        n_seeds: Searches of each kind; their hypervolumes are compared seed by seed.
    """
    print(f"\n{'search':<22}{'items':>9}{'volume':>9}{'+-':>9}{'ratio':>9}{'+-':>9}")
    whole = [search(3, "off", seed, _N_TRIALS)[0] for seed in range(n_seeds)]
    raced = [search(3, "fast", seed, _N_TRIALS)[0] for seed in range(n_seeds)]
    items = [1 - items_saved(study) for study in raced]
    off = np.array([hypervolume(study) for study in whole])
    early = np.array([_volume_after(s, share) for s, share in zip(whole, items, strict=True)])
    fast = np.array([hypervolume(study) for study in raced])
    share = float(np.mean(items))
    for name, used, volumes in (
        ("off", 1.0, off),
        ("fast", share, fast),
        ("off, ended early", share, early),
    ):
        figures = (used, *_mean(volumes), *_mean(volumes / off))
        print(f"{name:<22}" + "".join(f"{x:>9.3f}" for x in figures))


def _volume_after(study: StudyRecord, share: float) -> float:
    """Return the hypervolume after a share of the trials."""
    last = round(share * len(study.trials)) - 1
    return max(volume for number, volume in hypervolume_history(study) if number <= last)


def _mean(values: FloatArray) -> tuple[float, float]:
    """Return the mean and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
