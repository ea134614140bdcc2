"""A file with many mistakes: a line for each, with its place, and none for what follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.cli import main as cli
from tests.tiny import save_tiny_llama

EXPERIMENT = """\
models:
  base: zoo:base
  experts:
    math: zoo:math
    gone: ./gone
    other: ./other
search_space:
  method: task_arithmetic
  genes:
    coefficient: {range: [0.9, 0.1], initial: {maths: 0.5}}
  modules:
    all: [attention, mlp, norm, embedding, head]
    deep: {names: no_such_tensor}
evaluators:
  - zoo
  - tasks: [zoo_nothing]
    limit: many
objectives:
  - {task: zoo_math, metric: exact}
  - {task: zoo_mth, metric: exact_match}
  - {task: zoo_nothing, metric: exact_match}
  - {task: zoo_list, metrc: exact_match}
constraints:
  - {task: zoo_list, metric: exct_match, at_least: base - 0.1}
  - {task: zoo_list, metric: exact_match, at_least: expert:nobody}
sampler: {name: pycma, sigma: 0.2}
budget: {trials: -3}
race: {error_rate: 7}
gates: maybe
sede: 3
"""


def lines_of(
    folder: Path,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *overrides: str,
) -> list[str]:
    """What ``evomerge check`` says of a file, without the folder."""
    file = folder / "e.yaml"
    file.write_text(text)
    extra = [part for override in overrides for part in ("--set", override)]
    monkeypatch.setattr("sys.argv", ["evomerge", "check", str(file), *extra])
    capsys.readouterr()  # what was said before, say by transformers
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    printed = capsys.readouterr().err.replace(f"{folder}/", "")
    return [line.removeprefix("error: ") for line in printed.splitlines()]


def test_a_file_with_mistakes_of_all_kinds_shows_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_llama(tmp_path / "other", seed=0)
    overrides = ("finalists=few", "evaluators[1].num_fewshot=-1")
    found = lines_of(tmp_path, EXPERIMENT, monkeypatch, capsys, *overrides)
    starts = (
        "--set evaluators[1].num_fewshot: input should be",
        "--set finalists: expected a whole number, got 'few'",
        "e.yaml:5: models.experts.gone: expected",
        "e.yaml:6: models.experts.other: expected the tensors of",
        "e.yaml:10: search_space.genes.coefficient.initial.maths: 'maths' is not one of",
        "e.yaml:10: search_space.genes.coefficient.range: expected [low, high] with low < high",
        "e.yaml:13: search_space.modules.deep.names: 'no_such_tensor' is in no tensor name",
        "e.yaml:16: evaluators[1].tasks[0]: unknown task 'zoo_nothing'",
        "e.yaml:17: evaluators[1].limit: expected a whole number, got 'many'",
        "e.yaml:19: objectives[0].metric: expected a metric out of",
        "e.yaml:20: objectives[1].task: expected a task out of",
        "e.yaml:22: objectives[3].metrc: unknown key; did you mean 'metric'?",
        "e.yaml:24: constraints[0].metric: expected a metric out of",
        "e.yaml:25: constraints[1].at_least: expected",
        "e.yaml:26: sampler.sigma: unknown key; did you mean 'sigma0'?",
        "e.yaml:27: budget.trials: input should be greater than 0, got -3",
        "e.yaml:28: race.error_rate: input should be less than 1, got 7",
        "e.yaml:29: gates: expected on, off, or keys and values, got 'maybe'",
        "e.yaml:30: sede: unknown key; did you mean 'seed'?",
    )
    unmatched = [line for line in found if not line.startswith(starts)]
    assert not unmatched
    assert [s for s in starts if not any(line.startswith(s) for line in found)] == []
    assert len(found) == len(starts)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        # What the misspelt section would have said is unknown, and so is what rests on it.
        (("models:", "modles:"), ["e.yaml:1: modles: unknown key; did you mean 'models'?"]),
        (("evaluators:", "evalators:"), ["e.yaml:4: evalators: unknown key; did you mean"]),
        (("[zoo]", "[zo]"), ["e.yaml:4: evaluators[0]: expected one of the evaluators"]),
        (("objectives:", "objectivs:"), ["e.yaml:5: objectivs: unknown key; did you mean"]),
        (("zoo:base", "zoo:nobody"), ["e.yaml:2: models.base: "]),
        (("global_linear", "own.yaml"), ["own.yaml:3: genes.coefficient.rnge: unknown key"]),
    ],
)
def test_what_follows_from_a_mistake_is_none(
    change: tuple[str, str],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = """\
models:
  {base: zoo:base, experts: {math: zoo:math, list: zoo:list}}
search_space: global_linear
evaluators: [zoo]
objectives: [{task: zoo_math, metric: exact_match}, {cost: kl, reference: math}]
constraints: [{task: zoo_list, metric: exact_match, at_least: expert:list}]
"""
    (tmp_path / "own.yaml").write_text("method: linear\ngenes:\n  coefficient: {rnge: [0, 1]}\n")
    found = lines_of(tmp_path, text.replace(*change), monkeypatch, capsys)
    assert len(found) == len(expected), found
    assert all(map(str.startswith, found, expected))
