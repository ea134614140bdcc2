"""An average that is kept while the stock Trainer trains, against numpy and the checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from typer.testing import CliRunner

from evomerge.averaging.callback import AveragingCallback
from evomerge.cli.main import app
from evomerge.errors import ConfigError
from tests.averaging.runs import START, Arrays, arrays, train
from tests.averaging.test_average import assert_equal, lora, mean_of


class Recorder(TrainerCallback):
    """Keeps what the model is after every step."""

    def __init__(self) -> None:
        self.steps: list[Arrays] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        trained = kwargs["model"].named_parameters()
        self.steps.append({n: p.detach().double().numpy().copy() for n, p in trained})


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder, recorder = tmp_path_factory.mktemp("training"), Recorder()
    train(
        folder,
        recorder,
        AveragingCallback(ema=0.8),
        AveragingCallback(last=3, out=folder / "last"),
        AveragingCallback(ema=0.8, every=2, out=folder / "sparse"),
    )
    return folder, recorder


def test_the_moving_average_is_the_recursion_over_all_steps(
    watched: tuple[Path, Recorder],
) -> None:
    folder, recorder = watched
    mean = recorder.steps[0]
    for step in recorder.steps[1:]:
        mean = {name: 0.8 * mean[name] + 0.2 * step[name] for name in mean}
    assert_equal(arrays(folder / "run" / "average"), mean)


def test_the_last_are_averaged_alike(watched: tuple[Path, Recorder]) -> None:
    folder, recorder = watched
    last = recorder.steps[-3:]
    assert_equal(
        arrays(folder / "last"), {name: sum(step[name] for step in last) / 3 for name in last[0]}
    )


def test_every_saved_step_gives_what_the_command_makes_of_the_checkpoints(
    watched: tuple[Path, Recorder], tmp_path: Path
) -> None:
    folder, _ = watched
    arguments = ["average", str(folder / "run"), "--ema", "0.8", "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert_equal(arrays(folder / "sparse"), arrays(tmp_path / "out"))


def test_training_is_not_disturbed_and_the_average_is_a_whole_model(
    watched: tuple[Path, Recorder], tmp_path: Path
) -> None:
    folder, recorder = watched
    assert_equal(arrays(folder / "run" / "checkpoint-6"), recorder.steps[-1])
    assert_equal(arrays(train(tmp_path) / "checkpoint-6"), recorder.steps[-1])
    AutoTokenizer.from_pretrained(folder / "last")
    model = AutoModelForCausalLM.from_pretrained(folder / "last")
    assert torch.isfinite(model(torch.tensor([[3, 4]])).logits).all()


def test_the_trained_model_holds_its_own_values_in_the_end(tmp_path: Path) -> None:
    kept: dict[str, Arrays] = {}

    class Last(TrainerCallback):
        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found = kwargs["model"].named_parameters()
            kept["end"] = {n: p.detach().double().numpy().copy() for n, p in found}

    recorder = Recorder()
    train(tmp_path, recorder, AveragingCallback(ema=0.5), Last())
    assert_equal(kept["end"], recorder.steps[-1])


def test_of_an_adapter_only_the_adapter_is_kept_and_written(tmp_path: Path) -> None:
    callback = AveragingCallback(last=2, every=2)
    run = train(tmp_path, callback, wrap=lora)
    assert all("lora_" in name for name in callback.average)
    assert_equal(arrays(run / "average"), mean_of(run, {4: 1.0, 6: 1.0}))
    assert (run / "average" / "adapter_config.json").is_file()
    assert (tmp_path / START / "config.json").is_file()


def test_a_second_training_starts_anew(tmp_path: Path) -> None:
    callback = AveragingCallback(ema=0.9, out=tmp_path / "average")
    train(tmp_path, callback)
    once = arrays(tmp_path / "average")
    train(tmp_path, callback)
    assert_equal(arrays(tmp_path / "average"), once)


def test_float32_keeps_what_bfloat16_would_lose() -> None:
    """A thousand steps of a decay that bfloat16 cannot tell from 1."""
    model = torch.nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    callback, decay = AveragingCallback(ema=0.999), 0.999
    state: Any = type("State", (), {"is_world_process_zero": True, "global_step": 1})()
    for value in [0.0] + [1.0] * 1000:
        model.weight.data.fill_(value)
        callback.on_step_end(None, state, None, model=model)  # type: ignore[arg-type]
    np.testing.assert_allclose(callback.average["weight"].item(), 1 - decay**1000, rtol=1e-4)


@pytest.mark.parametrize(
    "options", [{}, {"ema": 0.9, "last": 2}, {"ema": 1.0}, {"last": 0}, {"ema": 0.9, "every": 0}]
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="got"):
        AveragingCallback(**options)
