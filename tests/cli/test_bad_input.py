"""Every user mistake: exit 2, clear lines, no traceback, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from evomerge.cli import main as cli
from evomerge.config.presets import Presets
from tests.tiny import save_tiny_llama

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


def faults_in(err: str) -> list[str]:
    """What a command says beside what it is doing."""
    doing = ("reading the experiment", "checking the experiment")
    return [line for line in err.strip().splitlines() if line not in doing]


def run_cli(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """Call the real entry point in this process: exit code and stderr."""
    monkeypatch.setattr("sys.argv", ["evomerge", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0), capsys.readouterr().err


def experiment(folder: Path, **change: object) -> Path:
    content = {
        "models": {"base": "zoo:base", "experts": {"math": "zoo:math", "list": "zoo:list"}},
        "search_space": "global_linear",
        "evaluators": ["zoo"],
        "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
    }
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump({**content, **change}))
    return file


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"modles": {}}, "modles: unknown key; did you mean 'models'?"),
        ({"seed": "x"}, "seed:"),
        ({"models": {"base": "zoo:base", "experts": {}}}, "models.experts:"),
        ({"models": {"base": "zoo:base", "experts": {"a": "zoo:mth"}}}, "math"),
        ({"models": {"base": "./none", "experts": {"a": "zoo:math"}}}, "none of them"),
        ({"evaluators": [{"tasks": ["zoo_maths"], "include_path": "."}]}, "zoo_maths"),
        ({"objectives": [{"task": "zoo_math", "metric": "acc"}]}, "expected a metric out of"),
        ({"objectives": [{"task": "zoo_mth", "metric": "acc"}]}, "did you mean 'zoo_math'"),
        ({"sampler": "cma-es"}, "sampler"),
        (
            {"models": {"base": "zoo:base", "experts": {"a.b": "zoo:math"}}},
            "models.experts['a.b']: expected an expert name of letters, digits, _ and -, got 'a.b'",
        ),
        ({"objectives": [{"task": "zoo_math", "metric": "exact_match"}] * 2}, "already"),
        (
            {
                "objectives": [
                    {"task": "zoo_math", "metric": "exact_match"},
                    {"task": "zoo_math", "metric": "exact_match", "preference": 2},
                ]
            },
            "objectives[1]: zoo_math exact_match is an objective already",
        ),
        ({"storage": "foo"}, "expected a database URL"),
        (
            {
                "evaluators": [
                    {
                        "tasks": ["zoo_math"],
                        "include_path": str(TASKS),
                        "splits": {"search": "search"},
                    }
                ]
            },
            "got no validation and no test; add them, or set finalists: 0",
        ),
        ({"sampler": {"name": "pycma", "sigma": 0.2}}, "sigma0"),
        (
            {"search_space": {"method": "ties", "genes": {"densty": {}}}},
            "genes.densty: no method here (ties) has it; did you mean 'density'?",
        ),
        ({"budget": 12}, "budget: expected keys and values, got 12"),
        ({"evaluators": "zoo"}, "evaluators: expected a list, got 'zoo'"),
        ({"objectives": []}, "objectives: expected at least one, got []"),
        ({"race": "carefull"}, "race: expected off, careful, fast, or keys and values, got"),
        ({"execution": {"workers": 0}}, "workers: expected auto or a whole number above 0, got 0"),
    ],
)
def test_mistakes_in_an_experiment(
    change: dict[str, object],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = tmp_path / "study"
    code, err = run_cli(
        ["run", str(experiment(tmp_path, **change)), "--dir", str(study)], monkeypatch, capsys
    )
    assert code == 2
    assert expected in err
    assert "Traceback" not in err
    assert all(line.startswith("error: ") for line in faults_in(err))
    assert not study.exists()


GOOD = {"q": "one plus two", "a": "three"}
TASK = {
    "dataset_path": "json",
    "test_split": "train",
    "doc_to_text": "{{q.lower()}}",
    "doc_to_target": "{{a}}",
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": 6},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def save_task(folder: Path, last: dict[str, object] | None = None, **change: object) -> None:
    """Write ``mine``, a task of 12 items, the last of them as given."""
    rows = [GOOD] * 11 + [last or GOOD]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {"dataset_kwargs": {"data_files": "data.jsonl"}}
    (folder / "mine.yaml").write_text(yaml.safe_dump({"task": "mine", **TASK, **data, **change}))


@pytest.mark.parametrize(
    ("task", "evaluator", "expected"),
    [
        ({"dataset_kwargs": {"data_files": "gone.jsonl"}}, {}, "data file does not exist: "),
        ({"doc_to_text": "{{ nothing }}"}, {}, "a template fails: 'nothing' is undefined"),
        ({"last": {**GOOD, "q": None}}, {}, "a template fails: 'None' has no attribute 'lower'"),
        ({"last": {**GOOD, "q": "one plus " * 99}}, {}, "but the context of the model is 32"),
        ({"metric_list": [{"metric": "exakt"}]}, {}, "'exakt' is no metric of lm-eval"),
        (
            {"filter_list": [{"name": "x", "filter": [{"function": "take_frst"}]}]},
            {},
            "no filter 'take_frst' (filter_list), nearest: take_first",
        ),
        ({}, {"splits": {"search": "train", "test": "tset"}}, "the dataset has no split 'tset'"),
        ({}, {"splits": {"search": 0.9, "validation": 0.01, "test": 0.09}}, "no items: 0.01 of 12"),
        ({}, {"limit": 0}, "evaluators[0].limit: input should be greater than 0, got 0"),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_mistakes_in_a_task(
    command: str,
    task: dict[str, object],
    evaluator: dict[str, object],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_task(tmp_path, **task)
    file = experiment(
        tmp_path,
        evaluators=[{"tasks": ["mine"], "include_path": ".", **evaluator}],
        objectives=[{"task": "mine", "metric": "exact_match"}],
    )
    study = tmp_path / "study"
    extra = ["--dir", str(study)] if command == "run" else []
    code, err = run_cli([command, str(file), *extra], monkeypatch, capsys)
    assert code == 2
    lines = faults_in(err)
    assert any(expected in line for line in lines)
    assert all(line.startswith("error: ") for line in lines)
    assert not study.exists()


def test_a_bomb_of_aliases_is_one_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    levels = [f"&a{i} [{', '.join([f'*a{i - 1}' if i else 'lol'] * 9)}]" for i in range(9)]
    file = experiment(tmp_path)
    file.write_text(f"{file.read_text()}seed: [{', '.join(levels)}]\n")
    code, err = run_cli(["check", str(file)], monkeypatch, capsys)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {file} is not readable YAML: line ")
    assert line.endswith("expected aliases of at most 100,000 values, got more")


def test_faults_of_different_parts_come_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = experiment(
        tmp_path,
        models={"base": "zoo:base", "experts": {"a": "zoo:nobody"}},
        search_space={"method": "tise", "genes": {}},
        objectives=[{"task": "zoo_math", "metric": "nope"}],
        sampler={"name": "pycma", "sigma": 0.2},
    )
    code, err = run_cli(["check", str(file)], monkeypatch, capsys)
    assert code == 2
    assert len(err.strip().splitlines()) == 4
    line = 1 + file.read_text().splitlines().index("  sigma: 0.2")
    assert f"error: {file}:{line}: sampler.sigma: unknown key; did you mean 'sigma0'?" in err


def test_models_of_other_shapes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_llama(tmp_path / "other", seed=0)
    models = {"base": "zoo:base", "experts": {"other": "other"}}
    code, err = run_cli(["check", str(experiment(tmp_path, models=models))], monkeypatch, capsys)
    assert code == 2
    assert "must share their architecture" in err


def test_a_damaged_tokenizer_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from evomerge.models.zoo import zoo_path

    shutil.copytree(zoo_path("base"), tmp_path / "bad")
    file = tmp_path / "bad" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": 3}))
    models = {"base": "bad", "experts": {"math": "zoo:math"}}
    code, err = run_cli(["check", str(experiment(tmp_path, models=models))], monkeypatch, capsys)
    assert code == 2
    (line,) = faults_in(err)
    assert "models.base: expected bad to have a tokenizer: " in line.replace(f"{tmp_path}/", "")


def test_nan_in_a_checkpoint_is_found_before_any_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from evomerge.models.zoo import zoo_path

    shutil.copytree(zoo_path("math"), tmp_path / "bad")
    weights = load_file(tmp_path / "bad" / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    models = {"base": "zoo:base", "experts": {"bad": "bad"}}
    arguments = ["run", str(experiment(tmp_path, models=models)), "--dir", str(tmp_path / "study")]
    code, err = run_cli([*arguments, "--executor", "inline"], monkeypatch, capsys)
    assert code == 2
    assert "1 NaN or infinite" in err
    assert "model.norm.weight" in err
    assert "Traceback" not in err
    assert not (tmp_path / "study" / "items").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status", "nowhere"], "expected a study folder"),
        (["resume", "nowhere"], "expected a study folder"),
        (["run", "quickstrat"], "did you mean 'quickstart'"),
        (["run", "missing.yaml"], "found none"),
        (["check", "quickstart", "--set", "sampler={name"], "expected a YAML value"),
        (["check", "quickstart", "--set", "search_space.method=ties"], "presets copy"),
        (["methods", "tiez"], "did you mean 'ties'"),
        (["presets", "show", "nothing"], "presets list"),
        (["evaluate", "zoo:bass", "--evaluator", "zoo"], "base"),
        (["evaluate", "zoo:base", "--evaluator", "zo"], "did you mean 'zoo'"),
        (["evaluate", "zoo:base", "--evaluator", "zoo", "--split", "train"], "train"),
        (["merge", "missing.yaml", "--out", "x"], "found none"),
        (["export", "x", "--out", "o", "--public"], "expected --push-to-hub with --public"),
    ],
)
def test_mistakes_on_the_command_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = run_cli(arguments, monkeypatch, capsys)
    assert code == 2
    assert expected in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["stauts", "x"], "'status'"),
        (["check"], "Missing argument 'experiment'"),
        (["run", "e.yaml", "--workers", "x"], "'--workers'"),
        (["run", "e.yaml", "--worker", "2"], "--workers"),
        (["export", "s", "--out", "o", "--format", "gguf"], "'hf', 'recipe', 'mergekit', 'lora'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: list[str],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, stderr = run_cli(arguments, monkeypatch, capsys)
    assert code == 2
    assert len(stderr.splitlines()) == 1
    assert stderr.startswith("error: ")
    assert expected in stderr
    assert "--help" in stderr


@pytest.mark.parametrize("arguments", [[], ["presets"]])
def test_no_command_prints_the_help(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["evomerge", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert "Commands" in out
    assert not err
