"""Files of mergekit-evolve as experiments: each kind that its documentation describes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from evomerge.cli.main import app
from evomerge.config.evolve import EvolveFile, Genome, experiment_from_evolve
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.models.zoo import zoo_path

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
MODELS = [str(zoo_path(name)) for name in ("math", "list", "facts")]
BASE = str(zoo_path("base"))
PLAIN = {"apply_chat_template": False, "fewshot_as_multiturn": False, "limit": 8}
MATH = {"name": "zoo_math", "metric": "exact_match,none"}

KINDS: dict[str, dict[str, Any]] = {
    "linear": {"models": MODELS, "merge_method": "linear", "layer_granularity": 3},
    "smooth": {"models": MODELS, "merge_method": "linear", "layer_granularity": 2, "smooth": True},
    "slerp": {"models": MODELS[:2], "merge_method": "slerp", "layer_granularity": 2},
    "slerp of more": {"models": MODELS, "merge_method": "slerp"},
    "task arithmetic": {
        "models": MODELS,
        "base_model": BASE,
        "merge_method": "task_arithmetic",
        "layer_granularity": 2,
        "allow_negative_weights": True,
        "normalize": True,
    },
    "ties": {
        "models": [*MODELS, BASE],
        "base_model": BASE,
        "merge_method": "ties",
        "layer_granularity": 6,
        "filters": ["self_attn", "mlp"],
    },
    "dare_ties": {"models": MODELS, "base_model": BASE, "merge_method": "dare_ties"},
}  # fmt: skip


def written(tmp_path: Path, genome: dict[str, Any], **rest: Any) -> Path:
    file = tmp_path / "genome.yaml"
    file.write_text(yaml.safe_dump({"genome": genome, "tasks": [MATH], **PLAIN, **rest}))
    return file


def imported(tmp_path: Path, genome: dict[str, Any], **rest: Any) -> dict[str, Any]:
    text = experiment_from_evolve(
        written(tmp_path, genome, **rest), out=tmp_path / "e.yaml", include_path=TASKS
    )
    content: dict[str, Any] = yaml.safe_load(text)
    return content


def run(*command: str) -> None:
    done = CliRunner().invoke(app, list(command))
    assert done.exit_code == 0, (done.output, done.exception)


@pytest.fixture(params=KINDS)
def experiment(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    file, out = written(tmp_path, KINDS[request.param]), tmp_path / "experiment.yaml"
    run("import", str(file), "--out", str(out), "--include-path", str(TASKS), "--trials", "7")
    return out


def test_every_kind_can_be_searched(experiment: Path) -> None:
    run("check", str(experiment))


def test_every_kind_merges_as_mergekit_does(experiment: Path, tmp_path: Path) -> None:
    pytest.importorskip("mergekit")
    study, config, ours = (tmp_path / name for name in ("study", "merge.yaml", "ours"))
    quick = ("execution.executor=inline", "finalists=0", "sampler=random")
    changes = [part for change in quick for part in ("--set", change)]
    run("run", str(experiment), "--dir", str(study), *changes)
    if "dare_ties" in experiment.read_text():
        return  # mergekit draws other masks
    for out, form in ((config, ["--format", "mergekit"]), (ours, [])):
        run("export", str(study), "--pick", "trial:6", "--out", str(out), *form)
    found, theirs = (load_file(f / "model.safetensors") for f in (ours, _by_mergekit(config)))
    assert found.keys() == theirs.keys()
    far = torch.cat([_far(found[name], tensor).flatten() for name, tensor in theirs.items()])
    others = 0.02 if "method: ties" in experiment.read_text() else 0.0  # equal changes at the cut
    assert far.float().mean() <= others


def _far(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    return ~torch.isclose(ours.float(), theirs.float(), rtol=0.01, atol=1e-3)


def _by_mergekit(config: Path) -> Path:
    out = config.with_name("theirs")
    command = [sys.executable, "-m", "mergekit.scripts.run_yaml", str(config), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    return out


def test_their_settings_are_ours(tmp_path: Path) -> None:
    read = imported(
        tmp_path,
        {
            "models": [*MODELS[:2], {"model": {"path": MODELS[2], "revision": "v1"}}],
            "base_model": BASE,
            "merge_method": "ties",
            "layer_granularity": 2,
            "filters": ["self_attn", "mlp.down"],
            "smooth": True,
        },
        tasks=[{**MATH, "weight": 2.0}, {"name": "zoo_facts", "weight": -1.0, "metric": "acc"}],
        num_fewshot=3,
    )
    assert list(read["models"]["experts"]) == ["math", "list", "facts"]
    assert read["models"]["experts"]["facts"].endswith("facts@v1")
    space = read["search_space"]
    assert space["depth"] == {"control_points": 3}
    assert list(space["modules"]) == ["self_attn", "mlp_down", "other"]
    assert space["modules"]["mlp_down"] == {"names": r"mlp\.down"}
    assert space["genes"]["coefficient"]["initial"] == 0.3333
    assert space["genes"]["density"]["initial"] == 1.0
    assert space["fixed"] == {"normalize": True}
    assert read["evaluators"][0]["num_fewshot"] == 3
    assert read["evaluators"][0]["limit"] == 8
    first, second = read["objectives"]
    assert first == {"task": "zoo_math", "metric": "exact_match", "preference": 2.0}
    assert second["direction"] == "minimize"
    assert second["preference"] == 1.0


def test_an_adapter_is_an_expert_of_its_own(tmp_path: Path) -> None:
    genome = {"models": [f"{BASE}+{MODELS[0]}", MODELS[1]], "base_model": BASE}
    read = imported(tmp_path, {**genome, "merge_method": "task_arithmetic"})
    assert read["models"]["experts"]["math"] == {"adapter": MODELS[0], "on": BASE}


def test_models_keep_their_place(tmp_path: Path) -> None:
    """Folders beside the file are named from where the experiment lies."""
    (tmp_path / "m").symlink_to(MODELS[0])
    genome = {"models": ["m", MODELS[1]], "base_model": BASE, "merge_method": "task_arithmetic"}
    file = written(tmp_path, genome)
    text = experiment_from_evolve(file, out=tmp_path / "sub" / "e.yaml")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "e.yaml").write_text(text)
    resolved = load_experiment(tmp_path / "sub" / "e.yaml", Presets())
    assert Path(str(resolved.models.experts["m"])).resolve() == Path(MODELS[0])


@pytest.mark.parametrize(
    ("genome", "rest", "expected"),
    [
        ({"merge_method": "sce"}, {}, ["merge_method"]),
        ({"merge_method": "ties", "base_model": None}, {}, ["base_model: expected one for ties"]),
        ({"layer_granularity": 4}, {}, ["expected a divisor of the 6 layers"]),
        ({"filterz": ["mlp"]}, {"lmit": 3}, ["did you mean 'filters'?", "did you mean 'limit'?"]),
        ({"filterz": [], "layer_granularity": 4}, {}, ["'filters'", "a divisor of the 6 layers"]),
        ({"filterz": [], "models": [MODELS[0]] * 2}, {}, ["'filters'", "expected each model once"]),
        ({"merge_method": "ties", "models": [BASE, 5]}, {}, ["models[1]"]),
        ({"merge_method": "slerp", "smooth": True}, {}, ["expected none for slerp"]),
        ({"models": [MODELS[0]] * 2}, {}, ["expected each model once"]),
        ({}, {"tasks": [{**MATH, "weight": 0}]}, ["weight: expected one other than 0"]),
        ({}, {"tasks": [{**MATH, "weight": float("nan")}]}, ["weight"]),
        ({}, {"tasks": [MATH, {**MATH, "weight": 2}]}, ["is there already"]),
        ({}, {"limit": -3, "num_fewshot": -1}, ["limit", "num_fewshot"]),
    ],
)
def test_what_cannot_be_is_said_with_its_line(
    genome: dict[str, Any], rest: dict[str, Any], expected: list[str], tmp_path: Path
) -> None:
    wrong = {"models": MODELS, "base_model": BASE, "merge_method": "linear", **genome}
    with pytest.raises(ConfigError) as error:
        imported(tmp_path, wrong, **rest)
    text = "\n".join(map(str, error.value.faults))
    assert "genome.yaml:" in text
    for part in expected:
        assert part in text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("union", {"source": "union"}),
        ("base", {"source": "base"}),
        (BASE, {"source": "base"}),
        (MODELS[1], {"source": "model:list"}),
        (None, None),
    ],
)
def test_the_tokenizer_is_the_one_that_is_asked_for(
    tmp_path: Path, source: str | None, expected: dict[str, str] | None
) -> None:
    genome = {**KINDS["task arithmetic"], "tokenizer_source": source}
    assert imported(tmp_path, genome)["models"].get("tokenizer") == expected


def test_the_page_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "migrating.md").read_text()
    keys = {*Genome.__dataclass_fields__, *EvolveFile.__dataclass_fields__} - {"genome"}
    assert not {key for key in keys if key not in page}
