"""Which genes matter: against an analysis of variance by hand, and against chance."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import f_oneway

from evomerge.analysis.gene_shares import gene_shares, trials_with_genes
from evomerge.study.records import StudyRecord
from tests.analysis.synthetic import objectives, study_of, trial


def made(n: int) -> StudyRecord:
    rng = random.Random(3)
    trials = []
    for number in range(n):
        params = {"method": rng.choice(["ties", "slerp", "dare"]), "strong": rng.random()}
        params |= {f"idle.{i}": rng.random() for i in range(8)}
        if number % 2:
            params["sometimes"] = rng.random()
        first = {"ties": 0.3, "slerp": 0.5, "dare": 0.6}[params["method"]] + rng.gauss(0, 0.05)
        scores = (first, 0.8 * params["strong"] + rng.gauss(0, 0.05))
        trials.append(replace(trial(number, scores), params=params))
    return study_of(trials, objectives(2))


def test_a_choice_has_the_share_that_an_analysis_of_variance_gives_it() -> None:
    study = made(80)
    found = gene_shares(study)
    assert found is not None
    shares = dict(found.rows)["method"]
    groups: dict[str, list[float]] = {}
    for one in study.trials:
        groups.setdefault(str(one.params["method"]), []).append(one.values[0])
    f, k, n = f_oneway(*groups.values()).statistic, len(groups), 80
    # epsilon squared from F, as Kelley has it
    assert shares[0] == pytest.approx((k - 1) * (f - 1) / ((k - 1) * f + n - k), abs=1e-9)
    assert shares[1] < found.chance


def test_what_matters_stands_out_from_chance_and_the_rest_does_not() -> None:
    found = gene_shares(made(200))
    assert found is not None
    clear = {gene for gene, shares in found.rows if max(shares) > found.chance}
    assert clear == {"method", "strong"}
    assert set(found.genes[:2]) == clear
    assert 0 < found.chance < 0.2
    assert len(found.genes) == 11
    assert found.n_trials == 200


def test_scores_that_do_not_differ_depend_on_nothing() -> None:
    study = made(40)
    flat = replace(study, trials=tuple(replace(t, values=(0.5, 0.5)) for t in study.trials))
    found = gene_shares(flat)
    assert found is not None
    assert np.array(found.shares).max() == 0


def test_a_few_trials_say_nothing() -> None:
    assert gene_shares(made(19)) is None


def test_of_very_many_trials_an_even_choice_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.analysis.gene_shares._MOST", 100)
    study = made(1000)
    found = gene_shares(study)
    assert found is not None
    assert found.n_trials == 100
    assert set(found.genes[:2]) == {"method", "strong"}
    assert [t.number for t in trials_with_genes(study)] == list(range(0, 1000, 10))
