"""Scores kept between runs: the same recipe on the same items is not scored twice.

One small compressed JSON file per entry; a damaged one is scored again.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evomerge.cache import read_entry, write_entry
from evomerge.evaluation.scores import ItemScore, MetricValue, Sample, Scores, Verdict

__all__ = ["SCORING", "ScoreCache"]

# Raise when the same recipe makes another model, the same model gets other scores, or entries take
# another form: what was kept before is not found again.
SCORING = 3


class ScoreCache:
    """Scores by digest.

    Args:
        folder: Created when something is stored; ``None`` keeps and finds nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._folder is not None

    def load(self, digest: str) -> Scores | None:
        """Return the scores of an entry, if there is one and it is whole."""
        if self._folder is None:
            return None
        entry = read_entry(self._path(digest))
        if entry is None:
            return None
        content = json.loads(zlib.decompress(entry))
        metrics = {
            task: {name: MetricValue(**value) for name, value in table.items()}
            for task, table in content["metrics"].items()
        }
        items = tuple(ItemScore(*item) for item in zip(*content["items"], strict=True))
        samples = {task: Sample(**one) for task, one in content.get("samples", {}).items()}
        verdicts = tuple(_verdict(one) for one in content.get("verdicts", ()))
        return Scores(metrics, items, content["seconds"], samples, verdicts)

    def store(self, digest: str, scores: Scores) -> None:
        """Keep scores; a full or read-only disk is no reason to lose them."""
        if self._folder is None:
            return
        columns = zip(*(asdict(item).values() for item in scores.items), strict=True)
        metrics = {
            task: {name: asdict(value) for name, value in table.items()}
            for task, table in scores.metrics.items()
        }
        samples = {task: asdict(sample) for task, sample in scores.samples.items()}
        content = {"metrics": metrics, "items": list(columns), "seconds": scores.seconds}
        content["samples"] = samples
        if scores.verdicts:
            content["verdicts"] = [asdict(verdict) for verdict in scores.verdicts]
        write_entry(self._path(digest), zlib.compress(json.dumps(content).encode(), level=1))

    def _path(self, digest: str) -> Path:
        assert self._folder is not None, "callers have asked"
        return self._folder / digest[:2] / f"{digest[2:]}.json.z"


def _verdict(content: dict[str, Any]) -> Verdict:
    told = {key: tuple(content[key]) for key in ("replies", "verdicts")}
    return Verdict(**{**content, **told})
