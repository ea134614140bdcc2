"""From finished searches to the table that is published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tests.benchmarks.evolve import PEER
from tests.benchmarks.landscapes.cases import Case
from tests.benchmarks.landscapes.searches import Progress
from tests.benchmarks.quality import stays_from

__all__ = ["Results", "tables"]

Results = dict[tuple[str, str, int], Progress | None]


def tables(results: Results, cases: Sequence[Case], auto: Mapping[str, str]) -> str:
    """Print one table per case in Markdown, best first.

    Args:
        results: Finished searches.
        cases: In order.
        auto: What ``auto`` chooses, by case.
    """
    return "\n\n".join(_table(results, case, auto[case.name]) for case in cases)


def _table(results: Results, case: Case, auto: str) -> str:
    runs = _by_method(results, case)
    fits = "; ".join(
        f"{f.task} {f.kind}, R² {f.r2:.2f}" for f in case.landscape.fits if f.task in case.tasks
    )
    lines = [
        f"**{case.name}**: {len(case.landscape.genes.distributions)} genes, {case.trials} trials; "
        f"landscape: {fits}",
        "",
        "| sampler | seeds | hypervolume (quartiles) | best mean | trials to the peer's end |",
        "|---|---|---|---|---|",
    ]
    goal = float(np.median([p.volume[-1] for p in runs[PEER]])) if PEER in runs else np.inf
    for method in sorted(runs, key=lambda m: -float(np.median([p.volume[-1] for p in runs[m]]))):
        low, middle, high = np.percentile([p.volume[-1] for p in runs[method]], [25, 50, 75])
        mean = np.median([p.mean[-1] for p in runs[method]])
        name = f"{method} (auto)" if method == auto else method
        lines.append(
            f"| {name} | {len(runs[method])} | {middle:.3f} ({low:.3f} to {high:.3f}) | "
            f"{mean:.3f} | {_reached(runs[method], goal)} |"
        )
    return "\n".join(lines)


def _by_method(results: Results, case: Case) -> dict[str, list[Progress]]:
    runs: dict[str, list[Progress]] = {}
    for (name, method, _), progress in sorted(results.items(), key=lambda item: item[0]):
        if name == case.name and progress is not None:
            runs.setdefault(method, []).append(progress)
    return runs


def _reached(runs: Sequence[Progress], goal: float) -> str:
    """Count the trials after which the median search is as good as the goal."""
    medians = np.median([p.volume for p in runs], axis=0)
    first = stays_from(medians, goal)
    return "not reached" if first is None else str(runs[0].trials[first])
