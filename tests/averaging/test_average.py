"""Averages over the checkpoints of a run that the stock Trainer has saved, against numpy."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from evomerge.averaging.averaging import Averaging
from evomerge.averaging.shares import ema_shares, measured_shares
from evomerge.cli.main import app
from evomerge.errors import CheckpointError, ConfigError, EvomergeError
from evomerge.recipe.files import load_recipe
from tests.averaging.runs import START, Arrays, arrays, train
from tests.tiny import save_tiny_llama

STEPS = (2, 4, 6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("training"))


def averaged(run: Path, out: Path, *options: str) -> Arrays:
    done = CliRunner().invoke(app, ["average", str(run), "--out", str(out), *options])
    assert done.exit_code == 0, (done.output, done.exception)
    return arrays(out)


def mean_of(run: Path, weights: dict[int, float]) -> Arrays:
    steps = {step: arrays(run / f"checkpoint-{step}") for step in weights}
    total = sum(weights.values())
    return {
        name: sum(w / total * steps[step][name] for step, w in weights.items())
        for name in steps[max(weights)]
    }


def assert_equal(found: Arrays, expected: Arrays) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6, err_msg=name)


def eval_losses(run: Path) -> dict[int, float]:
    log = json.loads((run / "checkpoint-6" / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["eval_loss"] for entry in log if "eval_loss" in entry}


def moving(run: Path, decay: float) -> dict[int, float]:
    """The recursion itself, on unit vectors: what is left of each checkpoint."""
    mean = np.array([1.0, 0, 0])
    for step in np.eye(3)[1:]:
        mean = decay * mean + (1 - decay) * step
    return dict(zip(STEPS, mean, strict=True))


def rules(run: Path) -> dict[str, tuple[tuple[str, ...], dict[int, float]]]:
    loss = eval_losses(run)
    return {
        "SWA": ((), dict.fromkeys(STEPS, 1.0)),
        "LaWA": (("--last", "2"), {4: 1.0, 6: 1.0}),
        "Free-Lunch, spaced": (("--every", "2"), {2: 1.0, 6: 1.0}),
        "EMA": (("--ema", "0.9"), moving(run, 0.9)),
        "weights": (("--weights", "1,2,5"), {2: 1.0, 4: 2.0, 6: 5.0}),
        "extrapolation": (("--weights", "0,-0.5,1.5"), {2: 0.0, 4: -0.5, 6: 1.5}),
        "MWA, power": (("--by", "power", "--alpha", "3"), {s: x**-3 for s, x in loss.items()}),
        "MWA, softmax": (("--by", "softmax"), {s: math.exp(-x) for s, x in loss.items()}),
        "MWA, steps": (("--by", "power", "--metric", "step"), {2: 2.0, 4: 4.0, 6: 6.0}),
    }


@pytest.mark.parametrize(
    "name",
    [
        *("SWA", "LaWA", "Free-Lunch, spaced", "EMA", "weights", "extrapolation"),
        *("MWA, power", "MWA, softmax", "MWA, steps"),
    ],
)
def test_an_average_is_the_weighted_mean_of_the_checkpoints(
    run: Path, name: str, tmp_path: Path
) -> None:
    options, weights = rules(run)[name]
    found = averaged(run, tmp_path / "out", *options)
    assert_equal(found, mean_of(run, weights))
    assert not np.allclose(found["lm_head.weight"], arrays(run / "checkpoint-6")["lm_head.weight"])


def test_an_average_is_an_ordinary_model_whose_recipe_makes_it_again(
    run: Path, tmp_path: Path
) -> None:
    found = averaged(run, tmp_path / "out", "--last", "2")
    AutoTokenizer.from_pretrained(tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.isfinite(model(torch.tensor([[3, 4]])).logits).all()
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml")
    assert list(recipe.experts) == ["step4", "step6"]
    arguments = ["merge", str(tmp_path / "out" / "recipe.yaml"), "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert_equal(arrays(tmp_path / "again"), found)


def test_checkpoints_are_put_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for step in (100, 20, 3):
        save_tiny_llama(tmp_path / f"checkpoint-{step}", seed=step, n_layers=1)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "tmp-checkpoint-7").mkdir()
    assert list(Averaging(last=2).recipe(tmp_path).experts) == ["step20", "step100"]


def lora(model: Any) -> Any:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def test_adapters_are_averaged_in_what_they_add_not_in_their_factors(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    run = train(tmp_path, wrap=lora)
    found = averaged(run, tmp_path / "out", "--weights", "1,1,2")
    expected: Arrays = {}
    for step, share in zip(STEPS, (0.25, 0.25, 0.5), strict=True):
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / START, dtype=torch.float64)
        adapter = peft.PeftModel.from_pretrained(whole, run / f"checkpoint-{step}")
        for name, tensor in adapter.merge_and_unload().state_dict().items():
            expected[name] = expected.get(name, 0.0) + share * tensor.double().numpy()
    assert_equal(found, expected)
    options = ["--weights", "1,1,2", "--lora"]
    done = CliRunner().invoke(app, ["average", str(run), "--out", str(tmp_path / "a"), *options])
    assert done.exit_code == 0, done.output
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / START, dtype=torch.float32)
    again = peft.PeftModel.from_pretrained(whole, tmp_path / "a").merge_and_unload().state_dict()
    assert_equal({n: t.double().numpy() for n, t in again.items()}, expected)


def damaged(run: Path, folder: Path) -> None:
    shutil.copytree(run, folder)
    (folder / "checkpoint-4" / "config.json").unlink()


def reshaped(run: Path, folder: Path) -> None:
    shutil.copytree(run, folder)
    shutil.rmtree(folder / "checkpoint-4")
    save_tiny_llama(folder / "checkpoint-4", seed=1, n_layers=3)


def mixed(run: Path, folder: Path) -> None:
    damaged(run, folder)
    (folder / "checkpoint-4" / "adapter_config.json").write_text("{}")


def unlogged(run: Path, folder: Path) -> None:
    shutil.copytree(run, folder)
    (folder / "checkpoint-4" / "trainer_state.json").write_text('{"log_history": []}')


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda run, folder: None, (), "expected checkpoint-N folders"),
        (damaged, (), "expected config.json or adapter_config.json in"),
        (mixed, (), "expected full models only, or adapters on one base"),
        (unlogged, ("--by", "power"), "expected eval_loss of step 4"),
        (reshaped, (), "checkpoint-"),
        (shutil.copytree, ("--by", "power", "--metric", "acc"), "expected acc of step 2"),
        (shutil.copytree, ("--last", "9"), "expected 9 checkpoints, got 3: 2, 4, 6"),
        (shutil.copytree, ("--weights", "1,2"), "expected a weight for each of the checkpoints"),
        (shutil.copytree, ("--weights", "1,-1,0"), "whose sum is not 0"),
        (shutil.copytree, ("--weights", "1,a"), "expected --weights as numbers"),
        (shutil.copytree, ("--ema", "1.5"), "expected a decay in [0, 1)"),
        (shutil.copytree, ("--ema", "0.9", "--by", "power"), "expected one of --ema"),
        (shutil.copytree, ("--lora",), "expected LoRA checkpoints with --lora"),
    ],
)
def test_what_cannot_be_averaged_is_said_in_a_line(
    run: Path, tmp_path: Path, change: Any, options: tuple[str, ...], expected: str
) -> None:
    change(run, tmp_path / "run")
    arguments = ["average", str(tmp_path / "run"), "--out", str(tmp_path / "out"), *options]
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, EvomergeError), (done.output, done.exception)
    assert expected in str(done.exception)
    assert len(str(done.exception).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_adapters_without_a_base_need_one(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="give --base"):
        Averaging().recipe(tmp_path)
    assert Averaging(base="zoo:base").recipe(tmp_path).base == "zoo:base"


def test_shares_are_those_of_the_recursion_and_of_arithmetic() -> None:
    assert ema_shares(1, 0.9) == (1.0,)
    np.testing.assert_allclose(ema_shares(3, 0.5), (0.25, 0.25, 0.5))
    power = measured_shares((1.0, 2.0), "power", 1.0, smaller_is_better=True)
    np.testing.assert_allclose(power, (2 / 3, 1 / 3))
    assert measured_shares((1.0, 2.0), "power", 0.0, smaller_is_better=True) == (0.5, 0.5)
    softmax = measured_shares((900.0, 900.0 + math.log(3)), "softmax", 1, smaller_is_better=False)
    np.testing.assert_allclose(softmax, (0.25, 0.75))
    with pytest.raises(ConfigError, match="above 0 to weigh by, got 0, 1"):
        measured_shares((0.0, 1.0), "power", 1.0, smaller_is_better=True)
