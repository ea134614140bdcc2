"""A driver that writes down when each trial was told: ``python -m …driver DIR ADDRESS TRIALS``."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.run import continue_study, settled, start_study
from evomerge.study.folder import StudyFolder
from tests.benchmarks.studies import load_quickstart


def _said(text: str) -> None:
    print(f"{time.time():.3f} {text}", flush=True)


SPOKEN = Events(
    phase=lambda name: _said(f"phase {name}"),
    told=lambda trial: _said(f"told {trial.number}"),
    warned=lambda text: _said(f"log {text}"),
)


def main(root: str, address: str, n_trials: str, *more: str) -> None:
    """Start or continue a study on a cluster, with as many workers as it has room for."""
    logging.basicConfig(level=logging.INFO, format="%(created).3f log %(message)s")
    logging.getLogger("evomerge").setLevel(logging.INFO)
    folder = StudyFolder(Path(root))
    if not folder.experiment.is_file():
        key = "executor" if address == "inline" else "ray_address"
        budget = [
            f"budget.trials={n_trials}",
            "finalists=0",
            "sampler=nsga2",
        ]  # no trial counts as two
        experiment = load_quickstart([f"execution.{key}={address}", *budget, *more])
        start_study(settled(Loaded.of(experiment), folder, SPOKEN), folder)
    continue_study(folder, SPOKEN)
    _said("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
