"""BoTorch beside our samplers: it is optional, and climbs where it is installed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evomerge.errors import SpaceError
from evomerge.space.protocol import Params
from tests.benchmarks import bayes as module
from tests.benchmarks.bayes import bayes, is_installed
from tests.samplers.searches import floats


def test_without_botorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_installed", lambda: False)
    with pytest.raises(SpaceError, match="pip install botorch"):
        bayes(floats(2), [], lambda params: (0.0,), trials=1, seed=1)


@pytest.mark.skipif(not is_installed(), reason="botorch is optional")
@pytest.mark.parametrize("n_objectives", [1, 2])
def test_it_starts_with_the_parents_and_gets_better(n_objectives: int) -> None:
    scored: list[tuple[Params, Sequence[float]]] = []

    def score(params: Params) -> Sequence[float]:
        goals = (0.3, 0.6)[:n_objectives]
        values = [-sum((float(x) - goal) ** 2 for x in params.values()) for goal in goals]
        scored.append((params, values))
        return values

    genes = floats(3)
    parents = [dict.fromkeys(genes.defaults, value) for value in (0.0, 1.0)]
    bayes(genes, parents, score, trials=16, seed=1)
    assert [params for params, _ in scored[:2]] == parents
    best = [max(sum(values) for _, values in part) for part in (scored[:10], scored[10:])]
    assert best[1] > best[0]
