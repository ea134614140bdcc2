"""Every user mistake: exit 2, clear lines, no traceback, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from evomerge.cli import main as cli
from evomerge.config.presets import Presets
from tests.tiny import save_tiny_llama

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


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
        ({"models": {"base": "zoo:base", "experts": {"a.b": "zoo:math"}}}, "models.experts"),
        ({"objectives": [{"task": "zoo_math", "metric": "exact_match"}] * 2}, "already"),
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
        ({"search_space": {"method": "ties", "genes": {"densty": {}}}}, "densty"),
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
    assert all(line.startswith("error: ") for line in err.strip().splitlines())
    assert not study.exists()


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
    assert f"error: {file}: sampler: sigma: unknown key; did you mean 'sigma0'?" in err


def test_models_of_other_shapes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_llama(tmp_path / "other", seed=0)
    models = {"base": "zoo:base", "experts": {"other": "other"}}
    code, err = run_cli(["check", str(experiment(tmp_path, models=models))], monkeypatch, capsys)
    assert code == 2
    assert "must share their architecture" in err


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_nan_in_a_checkpoint_is_found_before_any_trial(
    executor: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import shutil

    from evomerge.models.zoo import zoo_path

    shutil.copytree(zoo_path("math"), tmp_path / "bad")
    weights = load_file(tmp_path / "bad" / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    models = {"base": "zoo:base", "experts": {"bad": "bad"}}
    arguments = ["run", str(experiment(tmp_path, models=models)), "--dir", str(tmp_path / "study")]
    code, err = run_cli([*arguments, "--executor", executor], monkeypatch, capsys)
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
