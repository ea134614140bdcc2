"""Real searches of the embedded models, with races and without; about half a minute each.

    python -m tests.benchmarks.race_searches [--seeds N]

They are kept under ``runs/benchmarks/races``, where ``tests.benchmarks.races`` finds those without
races; what is there is not run again, and what was interrupted is resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.config.experiment import Experiment
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.config.runs import Events, continue_study, start_study
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord

__all__ = ["compare", "load_quickstart", "search"]

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
    if not folder.experiment.is_file():
        overrides = [
            f"objectives=[{', '.join(_OBJECTIVES[:n_objectives])}]",
            f"race={race}",
            f"seed={seed}",
            f"budget.trials={n_trials}",
            "execution.executor=inline",
            "finalists=0",
        ]
        start_study(load_quickstart(overrides), "quickstart", folder)
    return continue_study(folder, Events()), folder


def load_quickstart(overrides: Sequence[str]) -> Experiment:
    """Read the quickstart with ``KEY=VALUE`` changes."""
    presets = Presets()
    return load_experiment(presets.names("experiments")["quickstart"], presets, overrides)


def compare(n_seeds: int) -> None:
    """placeholder"""
