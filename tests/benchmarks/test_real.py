"""Tables about a real model, made here of the embedded ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from evomerge.config.presets import Presets
from evomerge.recipe.rules import copy_rule, sum_rule
from evomerge.runs.loaded import Loaded
from tests.benchmarks.real.held_out import held_out_table
from tests.benchmarks.real.known import known_merges
from tests.benchmarks.real.peers import PEERS, search_peer, seconds_table
from tests.benchmarks.real.scoring import Scorer
from tests.benchmarks.studies import load_quickstart

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
SUITE = (
    f"evaluators=[{{tasks: [zoo_math, zoo_list, zoo_facts], include_path: {TASKS}, limit: 12, "
    "splits: {search: search, validation: validation, test: test}}]"
)


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return Loaded.of(load_quickstart(["execution.executor=inline", SUITE]))


@pytest.fixture(scope="module")
def scorer(loaded: Loaded) -> Iterator[Scorer]:
    with Scorer(loaded) as found:
        yield found


def test_known_merges_are_the_best_of_their_kind_on_search_items(loaded, scorer):
    found = known_merges(loaded.models, scorer)
    assert list(found)[:5] == [
        "expert `math`",
        "expert `list`",
        "expert `facts`",
        "base",
        "uniform average",
    ]
    names = tuple(loaded.models.experts)

    def value(coefficients):
        rule = sum_rule(dict(zip(names, coefficients, strict=True)))
        return scorer.mean(loaded.models.recipe((rule,)), "search").value

    (best_sum,) = (r for name, r in found.items() if name.startswith("task arithmetic"))
    sums = [value([c] * 3) for c in (0.3, 0.5, 0.7, 1.0)]
    assert scorer.mean(best_sum, "search").value == max(sums)

    order = sorted(range(3), key=lambda i: -value(np.eye(3)[i]))
    soup, best = [order[0]], value(np.eye(3)[order[0]])
    for i in order[1:]:
        joined = value(np.eye(3)[[*soup, i]].mean(axis=0))
        soup, best = ([*soup, i], joined) if joined > best else (soup, best)
    (greedy,) = (name for name in found if name.startswith("greedy soup"))
    assert greedy == f"greedy soup of {', '.join(names[i] for i in soup)}"
    assert scorer.mean(found[greedy], "search").value == pytest.approx(best)


def test_leads_have_the_error_of_differences_on_the_same_items(loaded, scorer):
    names = tuple(loaded.models.experts)
    one, other = (loaded.models.recipe((copy_rule(name, names),)) for name in ("math", "base"))
    lead = scorer.lead(one, other, "test")
    gaps = []
    for objective in loaded.objectives:
        scores = [
            {
                i.item: i.score
                for i in scorer.items(recipe, "test")
                if i.task == objective.task and i.metric == objective.metric
            }
            for recipe in (one, other)
        ]
        gaps.append([scores[0][item] - scores[1][item] for item in scores[0]])
    errors = [np.std(gap, ddof=1) / len(gap) ** 0.5 for gap in gaps]
    assert lead.value == pytest.approx(np.mean([np.mean(gap) for gap in gaps]))
    assert lead.stderr == pytest.approx(np.linalg.norm(errors) / len(gaps))


def test_the_table_holds_all_against_the_first(loaded, scorer):
    names = tuple(loaded.models.experts)
    recipes = {n: loaded.models.recipe((copy_rule(n, names),)) for n in ("math", "base")}
    lines = held_out_table(scorer, recipes, loaded.objectives).splitlines()
    assert len(lines) == 4
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| math", "| base"]
    assert [
        line.rstrip(" |").endswith(str(scorer.mean(recipes["math"], "test"))) for line in lines[2:]
    ] == [True, False]


def test_scores_of_candidates_are_those_of_lm_eval(loaded):
    assert "Of 6 scores, 0 differ" in seconds_table(loaded, 1)


@pytest.mark.parametrize(("trials", "seconds"), [(1, None), (10_000, 0.0)])
def test_the_search_of_a_peer_ends_with_a_merge_of_the_models(loaded, tmp_path, trials, seconds):
    (evolution,) = (name for name, changes in PEERS.items() if changes is None)
    found = search_peer(lambda *_: loaded, evolution, 0, trials, tmp_path, seconds)
    assert loaded.models.are_mixed_by(found)
