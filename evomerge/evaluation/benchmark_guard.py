"""Guards public benchmarks: a score on items that were searched is no benchmark result."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.errors import Fault
from evomerge.evaluation.tasks import LoadedSuite

__all__ = ["searched_benchmarks", "test_split_faults"]


def searched_benchmarks(loaded: LoadedSuite) -> dict[str, str]:
    """Find the public benchmarks of a suite whose reported split is searched.

    Returns:
        Task name -> the dataset split that lm-eval reports the task by.
    """
    return dict(_searched(loaded))


def test_split_faults(loaded: LoadedSuite) -> list[Fault]:
    """Say of each task that a search would see the items a benchmark is reported by."""
    hint = (
        "name another dataset split in splits.search, or set allow_test_split: true in the "
        "experiment, which the model card will say"
    )
    return [
        Fault(
            loaded.suite.path_of(name),
            f"task {name!r} is a public benchmark reported by its split {split!r}, whose items "
            "would be searched, so that its score means nothing afterwards",
            hint,
        )
        for name, split in _searched(loaded)
    ]


def _searched(loaded: LoadedSuite) -> Iterator[tuple[str, str]]:
    share = loaded.suite.splits.get("search")
    for name in sorted(loaded.public):
        reported = loaded.own_splits[name] or loaded.tasks[name].config.validation_split
        if reported is not None and (share == reported or isinstance(share, float | int)):
            yield name, reported
