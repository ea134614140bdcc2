from __future__ import annotations

from dataclasses import replace

import pandas as pd
import yaml

from evomerge.analysis.report.setup import About, setup
from evomerge.study.records import Objective

from ..synthetic import make_study

EXPERIMENT: dict[str, object] = {
    "models": {"base": "zoo:base", "experts": {"math": {"adapter": "./lora", "on": "zoo:base"}}},
    "search_space": {"method": "ties", "genes": {"density": {"range": [0.1, 1.0]}}},
    "evaluators": [
        {"tasks": ["zoo_math"], "include_path": "tasks", "limit": 20},
        {"tasks": ["zoo_facts"], "report_only": True},
    ],
    "sampler": {"name": "tpe"},
    "budget": {"trials": 60},
}


def test_the_experiment_is_told_in_a_few_lines() -> None:
    found = setup(make_study(2, n_trials=5), About(EXPERIMENT, {"evomerge": "1.0"}))
    rows = dict(found.rows)
    assert rows["search space"] == "method ties; genes density: {range: [0.1, 1.0]}"
    assert rows["sampler"] == "name: tpe"
    assert rows["tasks"] == "zoo_math; limit 20"
    assert rows["only reported"] == "zoo_facts"
    assert rows["objectives"] == "zoo_math (higher is better); zoo_list (higher is better)"
    assert rows["versions"] == "evomerge 1.0"
    assert dict(found.models) == {
        "base": "zoo:base",
        "expert math": "adapter: ./lora, on: zoo:base",
        "uniform average": "the plain average of the experts",
    }
    assert yaml.safe_load(found.yaml) == EXPERIMENT


def test_a_cost_is_explained_with_its_unit() -> None:
    study = make_study(2, n_trials=5)
    cost = Objective("cost", "kl:math", "minimize", "kl:math")
    found = setup(replace(study, objectives=(study.objectives[0], cost)), About())
    assert [name for name, _ in found.rows] == ["objectives", "kl:math"]
    assert "per token, in nats" in dict(found.rows)["kl:math"]


def test_without_an_experiment_the_study_speaks() -> None:
    found = setup(make_study(2, n_trials=5), About())
    assert dict(found.rows).keys() == {"objectives"}
    assert found.yaml == ""


def test_the_noise_of_a_judge_is_shown() -> None:
    rows = {
        "task": ["a", "a", "a", "a"],
        "metric": ["quality", "quality_noise", "quality_noise,mean@2", "acc"],
        "score": [3.0, 0.5, 1.0, 9.0],
    }
    found = setup(make_study(2, n_trials=5), About(), pd.DataFrame(rows))
    assert [text for name, text in found.rows if name == "judge"] == [
        "a quality: standard deviation 0.75 between verdicts on one answer, on average"
    ]


def test_keys_left_open_are_not_shown() -> None:
    settings = {"max_gen_toks": 5, "until": None, "do_sample": True}
    experiment = {"evaluators": [{"tasks": ["a"], "generation_kwargs": settings}]}
    found = dict(setup(make_study(2, n_trials=5), About(experiment)).rows)
    assert found["tasks"] == "a; generation_kwargs max_gen_toks: 5, do_sample: true"


def test_metrics_of_ones_own_are_named_without_their_questions() -> None:
    metrics = {"quality": {"judge": {"prompt": "long"}}, "brevity": {"file": "x.py"}}
    experiment = {"evaluators": [{"tasks": ["a"], "metrics": metrics}]}
    found = dict(setup(make_study(2, n_trials=5), About(experiment)).rows)
    assert found["tasks"] == "a; metrics quality, brevity"
