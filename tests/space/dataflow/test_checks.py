"""Faults of path specs: all at once, each with its place."""

from __future__ import annotations

from typing import Any

import pytest

from evomerge.errors import ConfigError, spelt
from tests.space.dataflow.spaces import MERGE, space


def faults(**content: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        space({"kind": "dataflow", **content})
    return list(map(str, caught.value.faults))


def test_all_faults_are_reported_together() -> None:
    found = faults(
        sources=["math", "code", "math"],
        owner="merged",
        max_hops=2,
        scale={"range": [2.0, 3.0], "limit": 1.0},
    )
    assert [fault.partition(":")[0] for fault in found] == [
        *("sources", "sources", "owner", "max_hops", "scale.range", "scale.limit")
    ]


def test_an_unknown_source_names_the_known_ones() -> None:
    assert faults(sources=["maths"]) == [
        "sources: expected names out of math, list, base, got 'maths'"
    ]


@pytest.mark.parametrize("choices", [["math", "list>code"], ["math", "math", "skip"]])
def test_choices_must_be_distinct_lists_of_sources(choices: list[str]) -> None:
    (fault, *_) = faults(encoding={"name": "slots", "choices": choices})
    assert fault.startswith("encoding.choices: expected")


@pytest.mark.parametrize("encoding", ["slot", {"name": "threshold", "repeats": 0}])
def test_unknown_encodings_and_options_are_faults(encoding: object) -> None:
    (fault,) = faults(encoding=encoding)
    assert fault.startswith("encoding")


def test_the_initial_path_must_reach_both_ends() -> None:
    (fault,) = faults(encoding="slices", initial=[{"layers": [0.0, 0.5]}])
    assert fault == ("initial: expected runs from the first to the last layer of the owner 'math'")


def test_the_initial_path_must_be_one_of_the_space() -> None:
    runs = [{"layers": [0.0, 0.5]}, {"layers": [0.0, 1.0]}]
    (fault,) = faults(encoding="slots", initial=runs)
    assert fault == (
        "initial: expected a path that the encoding 'slots' and max_hops allow, got one of "
        "9 layers that they do not"
    )


def test_faults_of_a_hybrid_space_name_their_part() -> None:
    with pytest.raises(ConfigError) as caught:
        space(
            {
                "kind": "hybrid",
                "merge": MERGE | {"depth": {"groups": 9}},
                "path": {"owner": "math", "max_hops": 1},
            }
        )
    places = [spelt(fault.path) for fault in caught.value.faults]
    assert places == ["merge.depth.groups", "path.max_hops", "path.owner"]


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(
        ConfigError, match="expected one of parameter, layer_swap, dataflow, hybrid"
    ):
        space({"kind": "flow"})
