"""Scores kept between runs: the same recipe on the same items is not scored twice.

One small compressed JSON file per entry, written atomically; a damaged one is scored again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import uuid
from dataclasses import asdict
from pathlib import Path

from evomerge.evaluation.scores import ItemScore, MetricValue, Scores

__all__ = ["ScoreCache", "digest_of"]

_SCHEMA_VERSION = 1


def digest_of(*parts: object) -> str:
    """Name anything that JSON can hold, by its content; other objects by their text."""
    text = json.dumps([_SCHEMA_VERSION, *parts], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class ScoreCache:
    """Scores by digest.

    Args:
        folder: Created when something is stored; ``None`` keeps and finds nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def load(self, digest: str) -> Scores | None:
        """Return the scores of an entry, if there is one and it is whole."""
        if self._folder is None:
            return None
        try:
            content = json.loads(gzip.decompress(self._path(digest).read_bytes()))
            metrics = {
                task: {name: MetricValue(**value) for name, value in table.items()}
                for task, table in content["metrics"].items()
            }
            items = tuple(ItemScore(*item) for item in zip(*content["items"], strict=True))
            return Scores(metrics, items, content["seconds"])
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None

    def store(self, digest: str, scores: Scores) -> None:
        """Keep scores; a full or read-only disk is no reason to lose them."""
        if self._folder is None:
            return
        columns = zip(*(asdict(item).values() for item in scores.items), strict=True)
        metrics = {
            task: {name: asdict(value) for name, value in table.items()}
            for task, table in scores.metrics.items()
        }
        content = {"metrics": metrics, "items": list(columns), "seconds": scores.seconds}
        path = self._path(digest)
        partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(gzip.compress(json.dumps(content).encode(), compresslevel=1))
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        assert self._folder is not None, "callers have asked"
        return self._folder / digest[:2] / f"{digest[2:]}.json.gz"
