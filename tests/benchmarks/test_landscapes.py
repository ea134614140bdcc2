"""Slopes of landscapes, and the table of short searches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from evomerge.execution.protocol import Climb
from evomerge.samplers import GeneSpace
from evomerge.space.protocol import Params
from tests.benchmarks.landscapes import cases
from tests.benchmarks.landscapes.cases import Case
from tests.benchmarks.landscapes.short import DOCS, LOOKS, short_table
from tests.benchmarks.landscapes.slopes import NoisySlopes
from tests.benchmarks.quality import FloatArray
from tests.benchmarks.readme import write_readme
from tests.samplers.searches import floats

NAMES = [f"coefficient.{i}.math" for i in range(40)]
PLAIN = floats(40)
GENES = GeneSpace(
    dict(zip(NAMES, PLAIN.distributions.values(), strict=True)), dict.fromkeys(NAMES, 0.5)
)
ALONG = np.linspace(-1, 1, 40)


def accuracies(params: list[Params]) -> FloatArray:
    """One task whose log odds are linear, and one that always has the same."""
    odds = np.array([[p[name] for name in NAMES] for p in params]) @ ALONG
    return np.stack([1 / (1 + np.exp(-odds)), np.full(len(params), 0.5)], axis=1)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    known = SimpleNamespace(genes=GENES, tasks=("one", "two"), accuracies=accuracies)
    monkeypatch.setattr(cases, "landscape", lambda name: known)
    return Case("linear", "any", ("one", "two"), 40)


def test_slopes_of_a_landscape_are_those_of_its_log_odds_with_the_noise_of_items(
    case: Case,
) -> None:
    slopes, params = NoisySlopes(case, seed=0), dict(GENES.defaults)
    assert slopes.true(params)[0] == pytest.approx(-ALONG, abs=1e-6)
    assert slopes.true(params)[1] == pytest.approx(np.zeros(40), abs=1e-6)
    agreement = {}
    for items in (12, 48):
        climb = Climb(params, (1.0, 1.0), 1, items, step_size=0.1, pull=0.0, seed=0)
        draws = [slopes.sums(climb, params, 0, [(1.0, 0.0)])[0] for _ in range(60)]
        assert {(len(drawn.losses), drawn.n_items) for drawn in draws} == {(1, items)}
        rows = np.array([[*drawn.along.values()] for drawn in draws])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        agreement[items] = float(np.mean(rows[::2] @ rows[1::2].T))
    assert agreement[48] == pytest.approx(0.9, abs=0.02)
    assert agreement[12] == pytest.approx(1 / (1 + 4 / 9), abs=0.05)


def test_short_searches_have_a_table_and_a_place_in_the_docs(tmp_path: Path) -> None:
    found = np.zeros((2, len(LOOKS), 2))
    found[0, :, 0], found[:, :, 1] = 1.0, 0.25
    table = short_table([("a case", "a method", found)])
    assert table.splitlines()[-1] == f"| a case | a method | 2 |{' 0.250, 0.500 |' * len(LOOKS)}"
    copy = tmp_path / "samplers.md"
    copy.write_text((Path(__file__).parents[2] / DOCS).read_text(encoding="utf-8"))
    blocks = [f"landscapes-short-{role}" for role in ("tuned", "judged")]
    write_readme(dict.fromkeys(blocks, "a block"), copy)
    assert copy.read_text(encoding="utf-8").count("a block\n") == len(blocks)
