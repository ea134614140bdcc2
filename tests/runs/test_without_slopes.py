"""What stands in the way of steps along slopes is said before the run, and ``auto`` goes without.

All through the real commands, on the embedded models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers.models.llama.modeling_llama import LlamaMLP

from evomerge.cli import main as cli
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs import checks, workers
from evomerge.runs.loaded import Loaded
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.runs.test_climbs import CONTENT, TASKS

LAYERS = {
    "method": "task_arithmetic",
    "depth": {"groups": 6},
    "genes": {"coefficient": {"range": [0, 1]}},
}
SAMPLED = {"until": ["\n"], "do_sample": True, "temperature": 0.7, "max_gen_toks": 4}
HOPS = {"cost": "hops", "direction": "minimize"}
MATH = {"task": "zoo_math", "metric": "exact_match"}
MIB = 1 << 20


def experiment(folder: Path, **changes: Any) -> Path:
    """Twelve genes with slopes, unless that is changed."""
    file = folder / "e.yaml"
    whole = {**CONTENT, "search_space": LAYERS, "sampler": "auto", **changes}
    file.write_text(yaml.safe_dump(whole))
    return file


def say(
    arguments: list[object], patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Call the real entry point in this process: exit code, stdout and stderr."""
    patch.setattr("sys.argv", ["evomerge", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    return int(exit_.value.code or 0), *capsys.readouterr()


def line_of(said: str, name: str) -> str:
    (line,) = [line for line in said.splitlines() if line.split(" ")[0] == name]
    return line


def drawn_task(folder: Path) -> dict[str, Any]:
    """An evaluator whose task draws its answers at random."""
    task = yaml.safe_load((TASKS / "zoo_math" / "zoo_math.yaml").read_text())
    files = task["dataset_kwargs"]["data_files"].items()
    data = {split: str((TASKS / "zoo_math" / file).resolve()) for split, file in files}
    drawn = {"task": "drawn", "generation_kwargs": SAMPLED, "dataset_kwargs": {"data_files": data}}
    (folder / "drawn.yaml").write_text(yaml.safe_dump({**task, **drawn}))
    return {"tasks": ["drawn"], "include_path": str(folder), "limit": 8}


def obstacles(folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """What changes the experiment, and why nothing is climbed then."""
    drawn = {"task": "drawn", "metric": "exact_match"}
    return {
        "genes": (
            {"search_space": {"kind": "layer_swap"}},
            "no gene has a slope: choices, whole numbers and what moves masks have none",
        ),
        "task": (
            {"evaluators": [drawn_task(folder)], "objectives": [drawn]},
            "drawn has no slope: drawn: its answers are drawn at random; set do_sample: false",
        ),
        "cost": (
            {"objectives": [MATH, HOPS]},
            "hops has no slope: of the costs only distance and kl have one",
        ),
        "engine": (
            {"engine": "vllm"},
            "zoo_math, zoo_list have no slope: engine vllm keeps nothing to take slopes through; "
            "set engine: transformers",
        ),
        "memory": (
            {},
            "a step takes 3.03 MB beside the live model, and the worker has 1.05 MB for it",
        ),
    }


NAMES = ("genes", "task", "cost", "engine", "memory")


def prepare(name: str, patch: pytest.MonkeyPatch) -> None:
    """Make the machine one that an obstacle needs."""
    if name == "engine":  # everything is there that vLLM needs
        patch.setattr(checks, "find_spec", lambda _: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "mem_get_info", lambda: (1 << 34, 1 << 34))
    if name == "memory":
        limit_memory(patch, MIB)


def limit_memory(patch: pytest.MonkeyPatch, n_bytes: int) -> None:
    """Give all workers together so much memory beside what one takes without steps."""
    live = 2 * 680_448  # bfloat16
    patch.setattr(workers, "machine_bytes", lambda: (512 << 20) + live + n_bytes)


@pytest.mark.parametrize("name", NAMES)
def test_check_says_why_auto_goes_without_slopes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, why = obstacles(tmp_path)[name]
    prepare(name, monkeypatch)
    code, said, _ = say(["check", experiment(tmp_path, **changes)], monkeypatch, capsys)
    assert code == 0
    sampler = line_of(said, "sampler")
    assert f"; not along slopes: {why}" in sampler
    if name != "memory":  # where that line says what to do
        assert why not in line_of(said, "slopes")
    assert not sampler.split()[1].startswith("slopes")


@pytest.mark.parametrize("name", NAMES)
def test_check_refuses_slopes_that_there_are_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, _ = obstacles(tmp_path)[name]
    if name == "cost":
        changes = {"objectives": [HOPS]}
    prepare(name, monkeypatch)
    file = experiment(tmp_path, **changes, sampler="slopes")
    code, _, said = say(["check", file], monkeypatch, capsys)
    assert code == 2
    (line,) = [line for line in said.splitlines() if "sampler" in line]
    assert line.endswith("name another sampler, e.g. auto")


def test_a_run_without_slopes_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_memory(monkeypatch, MIB)
    file = experiment(tmp_path, budget={"trials": 3})
    code, _, said = say(["run", file, "--dir", tmp_path / "run"], monkeypatch, capsys)
    assert code == 0
    (line,) = [line for line in said.splitlines() if "sampler auto" in line]
    assert line.startswith("sampler auto: map: ")
    assert "not along slopes: a step takes" in line


@pytest.mark.parametrize(
    ("n_workers", "hint"),
    [(4, "run fewer workers (--workers 2)"), (1, "use shorter prompts (num_fewshot)")],
    ids=["several", "one"],
)
def test_check_says_what_would_make_room(
    n_workers: int,
    hint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    total = 2 * ((512 << 20) + 8 * MIB) if n_workers > 1 else 8 * MIB
    monkeypatch.setattr(workers, "machine_bytes", lambda: total)
    execution = {"workers": n_workers}
    file = experiment(tmp_path, sampler="slopes", execution=execution)
    code, _, said = say(["check", file], monkeypatch, capsys)
    assert code == 2
    assert "sampler: expected memory for steps along slopes: a step takes 3.03 MB" in said
    assert f"{hint}, or name another sampler, e.g. auto" in said


def test_a_share_of_a_gpu_that_is_too_small_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (12_000_000, 12_000_000))
    execution = {"gpus_per_worker": 0.25}
    file = experiment(tmp_path, sampler="slopes", execution=execution)
    code, _, said = say(["check", file], monkeypatch, capsys)
    assert code == 2
    assert "and each of 4 workers has 1.64 MB for it" in said
    assert "; give each worker a whole GPU (gpus_per_worker: 1), or name another" in said


def test_layers_run_again_where_memory_is_scarce(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limit_memory(monkeypatch, 4 * MIB)
    file = experiment(tmp_path)
    _, said, _ = say(["check", file], monkeypatch, capsys)
    assert "a step takes at most 3.03 MB per worker, with layers run again" in said
    settings = Loaded.of(load_experiment(file, Presets())).worker.losses
    assert settings is not None
    assert settings.checkpointing


class Underivable(torch.autograd.Function):
    """What goes forward as it is, and not back."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        return values.clone()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> None:
        raise NotImplementedError("derivative for 'merged_mlp' is not implemented")


def test_a_model_that_cannot_run_backward_is_searched_without_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    forward = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda *inputs: Underivable.apply(forward(*inputs)))
    file, folder = experiment(tmp_path, sampler=CONTENT["sampler"]), tmp_path / "run"
    code, _, said = say(["run", file, "--dir", folder], monkeypatch, capsys)
    assert code == 0
    error = "NotImplementedError: derivative for 'merged_mlp' is not implemented"
    assert said.count(error) == 1
    assert f"its steps along slopes failed: {error}; the search goes on without steps" in said
    trials = read_study(StudyFolder(folder)).trials
    assert len([t for t in trials if t.climb_error]) == 1
    assert trials[-1].values
    assert trials[-1].params != trials[-2].params
    _, status, _ = say(["status", folder], monkeypatch, capsys)
    assert f"failed       1 climbs; the last one with: {error}" in status
    report = (folder / "report.html").read_text()
    assert "1 failed to (the last one with: NotImplementedError" in report


def test_entropies_are_not_asked_for_gold_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The task's gold answer is none that its metric would accept."""
    task = drawn_task(tmp_path)
    written = yaml.safe_load((tmp_path / "drawn.yaml").read_text())
    del written["generation_kwargs"]
    choices = {
        "output_type": "multiple_choice",
        "doc_to_choice": ["one", "two"],
        "doc_to_target": "neither",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "drawn.yaml").write_text(yaml.safe_dump({**written, **choices}))
    facts = {"evaluators": [task], "objectives": [{"task": "drawn", "metric": "acc"}]}
    _, _, said = say(
        ["check", experiment(tmp_path, **facts, sampler="slopes")], monkeypatch, capsys
    )
    assert "drawn: no item has a gold answer" in said
    sampler = {"name": "slopes", "loss": "entropy"}
    code, said, _ = say(
        ["check", experiment(tmp_path, **facts, sampler=sampler)], monkeypatch, capsys
    )
    assert code == 0
    assert "along 12 of 12 genes; 100 items" in line_of(said, "slopes")
