"""Running from Python: callbacks hear of every trial, and lose none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import evomerge
from evomerge.errors import ConfigError, StudyError


def test_a_callback_that_raises_stops_the_run_and_nothing_is_lost(
    keys: dict[str, Any], study: evomerge.Study, tmp_path: Path
) -> None:
    heard: list[tuple[int, int]] = []

    def note(study: evomerge.Study, trial: evomerge.Trial) -> None:
        heard.append((trial.number, sum(t.state == "complete" for t in study.trials)))

    def stop(study: evomerge.Study, trial: evomerge.Trial) -> None:
        if trial.number == 3:
            raise ValueError("two\nlines")

    with pytest.raises(StudyError) as stopped:
        evomerge.run(keys, tmp_path / "parts", callbacks=[note, stop])
    assert str(stopped.value).startswith(
        "the callback stop raised ValueError(two lines) after trial 3; every trial is kept"
    )
    assert "\n" not in str(stopped.value)
    resumed = evomerge.resume(tmp_path / "parts", callbacks=[note])
    assert heard == [(number, number + 1) for number in range(6)]  # each is stored when it is told
    for whole, parts in zip(study.trials, resumed.trials, strict=True):
        assert (whole.params, whole.values) == (parts.params, parts.values)
    assert resumed.finals().equals(study.finals())


def test_an_experiment_without_a_name_needs_a_folder(keys: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="expected dir"):
        evomerge.run(keys)


def test_faults_of_plain_data_are_named_by_their_keys_all_at_once(
    keys: dict[str, Any], tmp_path: Path
) -> None:
    wrong = {**keys, "budjet": {}, "models": {"base": "zoo:base", "experts": {"a": "nowhere"}}}
    with pytest.raises(ConfigError) as found:
        evomerge.run(wrong, tmp_path / "s")
    lines = str(found.value).splitlines()
    assert any(line.startswith("budjet: unknown key") for line in lines)
    assert any(line.startswith("models.experts.a: ") for line in lines)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("wrong", [[], None, 3])
def test_what_is_no_experiment_at_all_is_said_so(wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"expected an experiment: its keys in a dict, .* got "):
        evomerge.Experiment.from_dict(wrong)


def test_plain_data_and_overrides_say_what_a_file_says(keys: dict[str, Any]) -> None:
    changed = evomerge.Experiment.from_dict(keys, set=["budget.trials=7"])
    assert changed.budget.trials == 7
    assert keys["budget"] == {"trials": 6}
    loaded = evomerge.Experiment.load("quickstart", set=["seed=3"])
    assert loaded.seed == 3
    assert evomerge.Experiment.from_dict(loaded.model_dump(exclude_unset=True)) == loaded
