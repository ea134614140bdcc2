"""Runs the searches that are missing, several at once, and keeps each as it ends."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from evomerge.errors import EvomergeError
from tests.benchmarks.searches.cases import Case
from tests.benchmarks.searches.history import history
from tests.benchmarks.searches.looks import Judge, Progress
from tests.benchmarks.searches.methods import load_case, search, study_folder
from tests.benchmarks.searches.rows import Key, keep, read

__all__ = ["judged", "run"]


def run(wanted: Sequence[tuple[Case, str, int]], jobs: int, *, again: bool) -> None:
    """Run searches that are not kept yet, keeping each as it ends; what fails is told and left.

    Args:
        wanted: Case, method and seed.
        jobs: Processes.
        again: Whether to run those that are kept, too, from the start.
    """
    kept = {} if again else read()
    missing = [one for one in wanted if _key(*one) not in kept]
    if again:
        for one in missing:
            shutil.rmtree(study_folder(*one).root, ignore_errors=True)
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        searches = {pool.submit(judged, *one): one for one in missing}
        for i, finished in enumerate(as_completed(searches), 1):
            case, method, seed = searches[finished]
            try:
                keep(_key(case, method, seed), *finished.result())
                said = ""
            except EvomergeError as err:  # it cannot search this kind of space
                said = f": {err}"
            except Exception:  # border: the others count without it
                said = f": {traceback.format_exc()}"
            print(f"{i}/{len(missing)} {case.name}: {method}, seed {seed}{said}", flush=True)


def judged(case: Case, method: str, seed: int) -> tuple[Progress, int]:
    """Run one search, and look at it; returns the number of the case's genes, too."""
    evaluated, parts = history(search(case, method, seed)), load_case(case)
    return Judge(parts).progress(evaluated, case.trials), len(parts.space.distributions)


def _key(case: Case, method: str, seed: int) -> Key:
    return Key(case.name, case.trials, method, seed)
