"""A search by metrics of one's own: objectives, finals, item scores, and what a judge said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, EvaluationError
from evomerge.evaluation import judge
from evomerge.evaluation.store import ItemStore
from evomerge.execution.worker import Worker
from evomerge.runs.cost import experiment_facts
from evomerge.runs.events import Events
from evomerge.runs.inputs import with_contents
from evomerge.runs.loaded import Loaded
from evomerge.runs.reading import read_study
from evomerge.runs.stages import start_run
from evomerge.study.folder import StudyFolder
from tests.evaluation.stand_in_judge import judge_server

KEY = "sk-very-secret-0123456789"
SPLITS = {"search": "search", "validation": "validation", "test": "test"}
BREVITY = "def letters(doc, answers, target):\n    return len(answers[0])\n"


def write(folder: Path, url: str, **judge_keys: object) -> Path:
    """An experiment that names an evaluator file in another folder, with a file beside that."""
    beside = folder / "evaluators"
    beside.mkdir(exist_ok=True)
    (beside / "metrics.py").write_text(BREVITY)
    evaluator = {
        "tasks": ["zoo_math"],
        "include_path": str(Presets().names("evaluators")["zoo"].parent / "tasks"),
        "splits": SPLITS,
        "limit": 3,
        "allow_code": True,
        "metrics": {
            "brevity": {"file": "metrics.py", "name": "letters", "higher_is_better": False},
            "quality": {
                "judge": {
                    "url": url,
                    "model": "grader",
                    "prompt": "{{doc.prompt}}? {{answer}}",
                    "scale": [0, 100],
                    "api_key_env": "JUDGE_KEY",
                    **judge_keys,
                }
            },
        },
    }
    (beside / "mine.yaml").write_text(yaml.safe_dump(evaluator))
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": ["evaluators/mine.yaml"],
        "objectives": [
            {"task": "zoo_math", "metric": "brevity"},
            {"task": "zoo_math", "metric": "quality"},
        ],
        "constraints": [{"task": "zoo_math", "metric": "brevity", "at_most": 50}],
        "seeds": {"averages": False},
        "budget": {"trials": 3},
        "finalists": 1,
        "execution": {"executor": "inline"},
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(judge, "_replies", {})
    monkeypatch.setenv("JUDGE_KEY", KEY)


def test_a_search_by_a_function_and_a_judge(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "run")
    with judge_server(lambda prompt: f"[[{len(prompt.split('? ')[1])}]]") as server:
        path = write(tmp_path, server.url)
        facts = dict(experiment_facts(Loaded.of(load_experiment(path, Presets()))))
        start_run(path, Presets(), [], folder, Events())
    who = f"grader at {server.url}, with the key in JUDGE_KEY"
    assert facts["judges"] == f"quality: {who}, up to 3 questions a trial"
    study = read_study(folder)
    assert [o.direction for o in study.objectives] == ["minimize", "maximize"]
    assert {t.state for t in study.trials} == {"complete"}
    items = ItemStore(folder.items).read()
    lines = [json.loads(line) for line in (folder.items / "verdicts.jsonl").open()]
    for trial in study.trials:
        brevity, quality = trial.values
        assert brevity == quality  # both count letters
        own = items[(items.trial == trial.number) & (items.split == "search")]
        scores = own[own.metric == "quality"].score
        assert scores.mean() == pytest.approx(quality)
        said = [v for v in lines if (v["trial"], v["split"]) == (trial.number, "search")]
        assert [v["verdicts"] for v in said] == [[one] for one in scores]
        assert [v["prompt"].split("? ")[1] for v in said] == [v["answer"] for v in said]
    assert {v["split"] for v in lines} == set(SPLITS)
    assert {r.split for r in study.finals} == {"validation", "test"}
    assert len(server.asked) == len(set(server.asked))
    assert set(server.keys) == {f"Bearer {KEY}"}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert not any(KEY.encode() in file.read_bytes() for file in files)


def test_a_worker_that_starts_late_reads_no_other_metric(tmp_path: Path) -> None:
    with judge_server(lambda _: "[[1]]") as server:
        path = write(tmp_path, server.url)
        loaded = Loaded.of(load_experiment(path, Presets()))
        spec = with_contents(loaded.worker, loaded)
        Worker(spec).prepare("validation")
        file = tmp_path / "evaluators" / "metrics.py"
        file.write_text(BREVITY.replace("len", "-len"))
        with pytest.raises(EvaluationError, match="metrics of zoo_math as they were when the run"):
            Worker(spec)


def test_every_drawn_answer_is_a_question(tmp_path: Path) -> None:
    with judge_server(lambda _: "[[1]]") as server:
        path = write(tmp_path, server.url, samples=2)
        suite = tmp_path / "evaluators" / "mine.yaml"
        drawn = {"repeats": 4, "generation_kwargs": {"do_sample": True, "temperature": 0.5}}
        suite.write_text(yaml.safe_dump({**yaml.safe_load(suite.read_text()), **drawn}))
        facts = dict(experiment_facts(Loaded.of(load_experiment(path, Presets()))))
    assert facts["judges"].endswith("up to 24 questions a trial")  # 3 items, 4 answers, 2 verdicts


def test_what_is_wrong_with_metrics_is_found_by_check(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("JUDGE_KEY")
    (tmp_path / "evaluators").mkdir()
    path = write(tmp_path, "localhost/v1", verdict="(a)(b)")
    (tmp_path / "evaluators" / "metrics.py").write_text(BREVITY.replace("letters", "words"))
    with pytest.raises(ConfigError) as error:
        Loaded.of(load_experiment(path, Presets()))
    found = [str(fault) for fault in error.value.faults]
    for key, text in {
        "brevity.name": "expected a function 'letters' in",
        "quality.judge.url": "expected http:// or https://, got 'localhost/v1'",
        "quality.judge.api_key_env": "expected a key in the environment variable 'JUDGE_KEY'",
        "quality.judge.verdict": "expected one group in the expression, got 2",
    }.items():
        assert any(one.startswith(f"evaluators[0].metrics.{key}: {text}") for one in found), found
    assert len(found) == 4


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"judge.samples": 0}, "judge.samples: "),
        ({"judge.promt": "x"}, "judge.promt: "),
        ({"file": "x.py"}, "expected one of file, entry_point, judge, runs, got file and judge"),
    ],
)
def test_keys_of_metrics_are_checked_as_all_keys_are(tmp_path: Path, keys, text) -> None:
    path = write(tmp_path, "http://localhost/v1")
    content = yaml.safe_load((tmp_path / "evaluators" / "mine.yaml").read_text())
    for key, value in keys.items():
        *outer, last = key.split(".")
        place = content["metrics"]["quality"]
        for part in outer:
            place = place[part]
        place[last] = value
    (tmp_path / "evaluators" / "mine.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError) as error:
        load_experiment(path, Presets())
    assert len(error.value.faults) == 1
    assert "mine.yaml" in str(error.value)
    assert text in str(error.value)
