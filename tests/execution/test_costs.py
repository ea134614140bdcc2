from __future__ import annotations

import pytest

from evomerge.execution.costs import COSTS, Cost, cost_fault


def test_every_cost_may_be_asked_for_by_its_bare_name() -> None:
    assert [cost_fault(name, ()) for name in COSTS] == [None] * len(COSTS)
    assert Cost.of("kl") == Cost("kl", "base")
    assert Cost.of("distance:math") == Cost("distance", "math")


@pytest.mark.parametrize(
    ("metric", "fault"),
    [
        ("hop", r"expected a cost out of parameters, hops.*did you mean 'hops'"),
        ("kl:mth", r"expected a reference out of base, math, got 'mth'; did you mean 'math'"),
        ("hops:math", "only distance and kl have a reference, got one for hops"),
    ],
)
def test_a_wrong_cost_is_explained(metric: str, fault: str) -> None:
    import re

    found = cost_fault(metric, ("math",))
    assert found is not None
    assert re.search(fault, found)
