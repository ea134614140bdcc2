"""From finished searches to the tables that are published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from tests.benchmarks.evolve import PEER
from tests.benchmarks.quality import FloatArray, stays_from
from tests.benchmarks.results import layout, markdown
from tests.benchmarks.searches.cases import Case, Role
from tests.benchmarks.searches.looks import SHARES, Progress
from tests.benchmarks.searches.rows import Key, Row

__all__ = ["tables"]

_NONE = "–"
_FIFTH, _HALF, _END = (SHARES.index(share) for share in (0.2, 0.5, 1.0))


@dataclass(frozen=True)
class _Runs:
    """All seeds of one method on one case."""

    rows: Sequence[Row]

    def at(self, look: int, which: str = "volume") -> FloatArray:
        """Values of all seeds at one look."""
        return np.array([getattr(row.progress, which)[look] for row in self.rows])

    def median(self, look: int, which: str = "volume") -> float:
        return float(np.median(self.at(look, which)))

    def within(self, seconds: float) -> float:
        """Median hypervolume after some seconds; 0 before the first look of a search."""
        return float(np.median([_at_seconds(row.progress, seconds) for row in self.rows]))

    def reaches(self, goal: float) -> int | None:
        """The look from which the median search stays as good as a goal."""
        medians = [self.median(look) for look in range(len(SHARES))]
        return stays_from(np.array(medians), goal)


def _at_seconds(progress: Progress, seconds: float) -> float:
    by_then = [v for v, s in zip(progress.volume, progress.seconds, strict=True) if s <= seconds]
    return by_then[-1] if by_then else 0.0


def tables(
    rows: Mapping[Key, Row], cases: Sequence[Case], auto: Mapping[str, str]
) -> dict[str, str]:
    """Lay out finished searches in Markdown, by the name of their block.

    Per role ``auto`` against the peer, then all methods case by case, best first.

    Args:
        rows: Finished searches.
        cases: In order.
        auto: The sampler that ``auto`` takes, by case.
    """
    return {
        f"searches-{role}": _section(rows, [c for c in cases if c.role == role], auto)
        for role in get_args(Role)
    }


def _section(rows: Mapping[Key, Row], cases: Sequence[Case], auto: Mapping[str, str]) -> str:
    by_case = {case.name: _by_method(rows, case) for case in cases}
    found = {name: runs for name, runs in by_case.items() if runs}
    chosen = [case for case in cases if case.name in found]
    all_rows = [row for runs in found.values() for run in runs.values() for row in run.rows]
    columns = [
        "search", "genes", "auto is", f"{PEER}, end", "auto, 1/5", "1/2", "end",
        "in the peer's seconds",
        "evaluations to the peer's end", "seconds to it",
    ]  # fmt: skip
    summary = markdown(
        columns,
        [_summary(case, found[case.name], auto[case.name]) for case in chosen],
        [{"setting": row.setting, "load": row.load} for row in all_rows],
    )
    tables = [_table(case, found[case.name], auto[case.name]) for case in chosen]
    return "\n\n".join([summary, *tables])


def _by_method(rows: Mapping[Key, Row], case: Case) -> dict[str, _Runs]:
    found: dict[str, list[Row]] = {}
    for key in sorted(rows, key=lambda key: key.seed):
        if (key.case, key.trials) == (case.name, case.trials):
            found.setdefault(key.method, []).append(rows[key])
    return {method: _Runs(seeds) for method, seeds in found.items()}


def _summary(case: Case, runs: Mapping[str, _Runs], auto: str) -> list[str]:
    mine, peer = runs.get(auto), runs.get(PEER)
    genes = next(iter(runs.values())).rows[0].genes
    looks = (_FIFTH, _HALF, _END)
    return [
        case.name,
        str(genes),
        auto,
        _NONE if peer is None else f"{peer.median(_END):.3f}",
        *([_NONE] * 3 if mine is None else [f"{mine.median(look):.3f}" for look in looks]),
        _NONE if mine is None else _in_its_seconds(mine, peer),
        *([_NONE] * 2 if mine is None else _reached(mine, peer, case)[1:]),
    ]


def _table(case: Case, runs: Mapping[str, _Runs], auto: str) -> str:
    columns = [
        "method", "seeds", "hypervolume at 1/5", "at 1/2", "at the end (quartiles)",
        "in the peer's seconds", "best mean",
        "evaluations to the peer's end", "share of its", "share of its seconds",
    ]  # fmt: skip
    order = sorted(runs, key=lambda method: -runs[method].median(_END))
    lines = []
    for method in order:
        own = runs[method]
        low, middle, high = np.percentile(own.at(_END), [25, 50, 75])
        lines.append(
            [
                f"{method} (auto)" if method == auto else method,
                str(len(own.rows)),
                f"{own.median(_FIFTH):.3f}",
                f"{own.median(_HALF):.3f}",
                f"{middle:.3f} ({low:.3f} to {high:.3f})",
                _in_its_seconds(own, runs.get(PEER)),
                f"{own.median(_END, 'mean'):.3f}",
                *_reached(own, runs.get(PEER), case),
            ]
        )
    genes = runs[order[0]].rows[0].genes
    return f"**{case.name}**: {genes} genes, {case.trials} evaluations\n\n{layout(columns, lines)}"


def _in_its_seconds(own: _Runs, peer: _Runs | None) -> str:
    """Hypervolume of the median search once it has taken as long as the peer's whole search."""
    seconds = math.nan if peer is None else peer.median(_END, "seconds")
    is_known = not math.isnan(seconds + own.median(_END, "seconds"))
    return f"{own.within(seconds):.3f}" if is_known else _NONE


def _reached(own: _Runs, peer: _Runs | None, case: Case) -> list[str]:
    """When the median search is as good as the peer's at its end: count, share, seconds' share."""
    if peer is None:
        return [_NONE] * 3
    look = own.reaches(peer.median(_END))
    if look is None:
        return ["not reached", _NONE, _NONE]
    seconds = own.median(look, "seconds") / peer.median(_END, "seconds")
    return [
        f"{SHARES[look] * case.trials:.0f}",
        f"{SHARES[look]:.0%}",
        _NONE if math.isnan(seconds) else f"{seconds:.0%}",
    ]
