"""The comparison of samplers on real searches: what is counted, judged, kept and shown."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from evomerge.evaluation.suite import SPLITS
from evomerge.execution.worker import Worker
from evomerge.recipe.recipe import Recipe, Rule
from tests.benchmarks.evolve import PEER
from tests.benchmarks.quality import picked, quality, stays_from
from tests.benchmarks.readme import write_readme
from tests.benchmarks.searches import methods, rows
from tests.benchmarks.searches.__main__ import DOCS
from tests.benchmarks.searches.cases import CASES, Case, Role
from tests.benchmarks.searches.history import Step, history
from tests.benchmarks.searches.looks import SHARES, Progress
from tests.benchmarks.searches.methods import WHOLE_MODEL, load_case
from tests.benchmarks.searches.pooled import EMBEDDED, POOLED, write_pooled
from tests.benchmarks.searches.running import judged
from tests.benchmarks.searches.table import tables
from tests.benchmarks.studies import load_quickstart

RECIPE = Recipe({"a": "a"}, (Rule("linear", {"coefficient": 1.0}),))
TINY = Case("tiny", "judged", "layerwise_task_arithmetic", ("zoo_math", "zoo_list"), 7, limit=4)


def test_a_climb_is_paid_for_after_the_scores_of_its_trial() -> None:
    scored = {"ask": 0.5, "merge": 1.0, "evaluate": 2.0}
    found = history(
        [
            Step(RECIPE, (0.1,), scored),
            Step(RECIPE, (0.2,), {**scored, "slopes": 10.0}, evaluations=3.5),
            Step(RECIPE, (math.nan,), scored),
        ]
    )
    assert [one.evaluations for one in found] == [1.0, 2.0, 5.5]
    assert [one.seconds for one in found] == [3.5, 7.0, 20.5]
    assert [one.values for one in found] == [(0.1,), (0.2,), ()]


def test_scores_that_were_known_take_the_usual_time() -> None:
    known = Step(RECIPE, (0.1,), {"ask": 1.0, "merge": 0.0, "evaluate": 0.001})
    measured = [Step(RECIPE, (0.1,), {"merge": 1.0, "evaluate": s}) for s in (1.0, 3.0, 90.0)]
    assert history([known, *measured])[0].seconds == 1.0 + 4.0
    assert math.isnan(history([known])[0].seconds)


def test_noisy_values_pick_and_true_ones_count() -> None:
    seen = np.array([[0.9, 0.1], [0.5, 0.6], [0.4, 0.4], [0.1, 0.9]])
    front, best = picked(seen, np.zeros(2), n=4)
    assert (front, best) == ([0, 1, 3], 1)
    true = np.array([[0.5, 0.0], [0.25, 0.5], [1.0, 1.0], [0.0, 0.5]])
    parents = np.array([[0.0, 0.5], [0.5, 0.0]])
    volume, mean = quality(true[front], true[best], parents)
    assert volume == pytest.approx(0.5)  # one corner at (0.5, 1) of the parents' box
    assert mean == pytest.approx(0.375)


def test_a_long_front_keeps_what_adds_most() -> None:
    seen = np.array([[0.9, 0.1], [0.52, 0.58], [0.55, 0.55], [0.1, 0.95]])
    assert picked(seen, np.zeros(2), n=1)[0] == [2]  # 0.3025 of 0.09, 0.3016, 0.3025, 0.095
    assert picked(seen, np.zeros(2), n=3)[0] == [0, 2, 3]


@pytest.mark.parametrize(
    ("values", "look"), [([1, 0, 1, 2], 2), ([1, 1], 0), ([2, 0], None), ([0, 1], 1)]
)
def test_a_goal_is_reached_where_it_is_kept(values: list[float], look: int | None) -> None:
    assert stays_from(np.array(values, dtype=np.float64), 1.0) == look


def test_the_latest_row_of_a_search_counts(tmp_path: Path) -> None:
    path, key = tmp_path / "runs" / "rows.jsonl", rows.Key("one", 100, "map", 1)
    assert rows.read(path) == {}
    for volume, at in ((0.1, key), (0.2, replace(key, trials=50)), (0.3, key)):
        rows.keep(at, _progress(volume), genes=3, path=path)
    found = {at: row.progress.volume[-1] for at, row in rows.read(path).items()}
    assert found == {key: 0.3, replace(key, trials=50): 0.2}


def test_tuned_and_judged_searches_are_shown_apart() -> None:
    cases = [replace(TINY, name="one", trials=100), replace(TINY, name="two", role="tuned")]
    kept = {
        rows.Key("one", 100, "map", 1): _row(0.6, 0.8),
        rows.Key("one", 100, "map", 2): _row(0.7, 0.8),
        rows.Key("one", 100, PEER, 1): _row(0.5, 0.7, seconds=30.0),
        rows.Key("one", 100, "random", 1): _row(0.1, 0.2),
        rows.Key("one", 100, "nsga2", 1): _row(0.1, 0.2, seconds=math.nan),  # all was known
        rows.Key("one", 99, "random", 2): _row(9.0, 9.0),
    }
    found = tables(kept, cases, {"one": "map", "two": "map"})
    assert "two" not in found["searches-judged"]
    assert "Not measured yet." in found["searches-tuned"]
    lines = found["searches-judged"].splitlines()
    assert "| one | 27 | map | 0.700 | 0.650 | 0.800 | 0.800 | 0.650 | 40% | 133% |" in lines
    best = "0.800 (0.800 to 0.800) | 0.650 | 0.500"
    assert f"| map (auto) | 2 | 0.650 | 0.800 | {best} | 40 | 40% | 133% |" in lines
    assert any(line.startswith("| random | 1 |") and "not reached" in line for line in lines)
    assert any(line.startswith("| nsga2 | 1 |") and line.count("–") == 3 for line in lines)


def test_the_docs_have_a_place_for_every_table(tmp_path: Path) -> None:
    copy = tmp_path / "samplers.md"
    copy.write_text((Path(__file__).parents[2] / DOCS).read_text(encoding="utf-8"))
    blocks = [f"searches-{role}" for role in get_args(Role)]
    write_readme(dict.fromkeys(blocks, "| a table |"), copy)
    assert copy.read_text(encoding="utf-8").count("| a table |") == len(blocks)


def test_every_case_is_an_experiment() -> None:
    assert {case.role for case in CASES} == {"tuned", "judged"}
    for case in CASES:
        for whole_model in (False, True):
            experiment = load_quickstart(case.overrides(whole_model=whole_model))
            assert len(experiment.objectives) == len(case.tasks)
            assert list(experiment.models.experts) == list(case.experts)


def test_the_finest_case_has_one_gene_per_tensor_and_expert() -> None:
    (case,) = [case for case in CASES if case.name.startswith("tensors")]
    parts = load_case(case)
    assert len(parts.space.distributions) == len(parts.models.tensors) * len(case.experts) == 168


def test_the_pooled_task_holds_every_item(tmp_path: Path) -> None:
    write_pooled(tmp_path)
    for split in set(SPLITS) - {"validation"}:
        items = _lines(tmp_path / f"{split}.jsonl")
        parts = [_lines(file) for file in sorted(EMBEDDED.glob(f"zoo_*/{split}.jsonl"))]
        assert [item["prompt"] for item in items] == [row["prompt"] for p in parts for row in p]
        facts = {row["prompt"]: row["choices"][row["label"]] for row in parts[0]}
        assert {item["prompt"]: item["answer"] for item in items[: len(facts)]} == facts
    assert (tmp_path / f"{POOLED}.yaml").is_file()


@pytest.fixture
def _own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_own_runs")
def test_the_peer_searches_and_is_judged() -> None:
    progress, n_genes = judged(TINY, PEER, seed=1)
    assert n_genes == 27
    _require_sound(progress)


@pytest.mark.usefixtures("_own_runs")
def test_a_study_is_judged_and_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _require_sound(judged(TINY, WHOLE_MODEL, seed=1)[0])
    monkeypatch.delattr(Worker, "run")
    steps = methods.search(TINY, WHOLE_MODEL, seed=1)
    assert len(steps) == TINY.trials
    assert {len(step.recipe.rules) for step in steps} == {1}


def _require_sound(progress: Progress) -> None:
    assert progress.evaluations == [share * TINY.trials for share in SHARES]
    assert progress.members[0] == 0  # before the first trial is scored
    assert progress.members[-1] > 0
    assert progress.seconds == sorted(progress.seconds)
    assert progress.seconds[-1] > 0
    assert 0 <= progress.mean[-1] <= 1


def _progress(early: float, late: float | None = None, seconds: float = 100.0) -> Progress:
    """A search that gets from one volume to another after 0.3 of its budget."""
    volume = [early if share < 0.4 or late is None else late for share in SHARES]
    evaluations, used = [100 * s for s in SHARES], [seconds * s for s in SHARES]
    return Progress(evaluations, used, volume, [0.5] * len(SHARES), [3] * len(SHARES))


def _row(early: float, late: float, seconds: float = 100.0) -> rows.Row:
    return rows.Row(_progress(early, late, seconds), genes=27, setting="a machine", load=1.0)


def _lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
