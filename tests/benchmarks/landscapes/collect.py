"""Measures the embedded models all over a search space: what the landscapes are fitted to.

``python -m tests.benchmarks.landscapes.collect [SPACE]...`` runs real searches (random points, and
the points that samplers of different temper go to, so that the good regions are well covered) and
writes one file per space to ``measured/``. It takes some minutes per space on one core; then run
``scales``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs.events import Events
from evomerge.runs.loaded import Loaded
from evomerge.runs.stages import start_run
from evomerge.samplers import GeneSpace
from evomerge.study.folder import StudyFolder
from evomerge.study.records import StudyRecord

MEASURED = Path(__file__).parent / "measured"
SPACES = ("global_linear", "layerwise_task_arithmetic", "layerwise_ties", "method_choice")
_TRIALS = {"random": 120, "tpe": 160, "nsga2": 120}


def collect(space: str) -> None:
    """Run the searches of one space and write what they measured."""
    experiment = Presets().names("experiments")["quickstart"]
    genes = _genes(experiment, space)
    rows = []
    for sampler, n_trials in _TRIALS.items():
        with tempfile.TemporaryDirectory() as folder:
            study = _search(experiment, space, sampler, n_trials, StudyFolder(Path(folder) / "s"))
        rows += list(_rows(study, genes))
        print(space, sampler, len(rows), flush=True)
    tasks = [o.name for o in study.objectives]
    write(space, {"space": space, "tasks": tasks, "genes": list(genes.distributions), "rows": rows})


def write(space: str, measured: Mapping[str, Any]) -> None:
    """Write measurements as JSON, one trial per line."""
    MEASURED.mkdir(exist_ok=True)
    head = json.dumps({key: value for key, value in measured.items() if key != "rows"})[:-1]
    lines = ",\n".join(map(json.dumps, measured["rows"]))
    (MEASURED / f"{space}.json").write_text(f'{head}, "rows": [\n{lines}\n]}}\n')


def _search(
    experiment: Path, space: str, sampler: str, n_trials: int, folder: StudyFolder
) -> StudyRecord:
    overrides = [
        f"search_space={space}",
        f"sampler={sampler}",
        f"budget.trials={n_trials}",
        "execution.executor=inline",
        "finalists=0",
    ]
    return start_run(experiment, Presets(), overrides, folder, Events())


def _genes(experiment: Path, space: str) -> GeneSpace:
    overrides = [f"search_space={space}"]
    loaded = Loaded.of(load_experiment(experiment, Presets(), overrides))
    return GeneSpace(loaded.space.distributions, loaded.space.defaults, loaded.space.depths)


def _rows(study: StudyRecord, genes: GeneSpace) -> Iterator[list[list[float | int | str]]]:
    """Yield [genes, scores] of every trial that the space can express."""
    for trial in study.trials:
        if trial.state == "complete" and trial.params:
            values = genes.complete(trial.params).values()
            rounded = [round(v, 4) if isinstance(v, float) else v for v in values]
            yield [rounded, [round(v, 6) for v in trial.values]]


if __name__ == "__main__":
    for name in sys.argv[1:] or SPACES:
        collect(name)
