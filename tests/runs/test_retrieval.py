"""Answers on search items tell which expert of a pool is for which held-out task."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from typer.testing import CliRunner

from evomerge.analysis.retrieval import retrieve
from evomerge.api.comparing import compare_answers
from evomerge.cli import main as cli
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import EvomergeError
from evomerge.merging.sources import Sources
from evomerge.models.zoo import zoo_path
from evomerge.observation.examples import task_examples
from evomerge.runs.loaded import Loaded
from evomerge.runs.retrieval import ask

POOL = ("facts", "math_step200", "list", "math")
TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pool") / "pool.yaml"
    experts = ", ".join(f"{name}: zoo:{name}" for name in POOL)
    found.write_text(
        f"models: {{base: zoo:base, experts: {{{experts}}}}}\nsearch_space: global_linear\n"
        "evaluators: [zoo]\nobjectives: [{task: zoo_math, metric: exact_match}]\n"
    )
    return found


def test_it_finds_the_expert_of_every_task(file: Path) -> None:
    loaded = Loaded.of(load_experiment(file, Presets()))
    examples = task_examples(loaded.tasks.prompted("search"), 12)
    asked = ask(loaded, Sources.of(loaded.models, None), examples)
    found = retrieve("base", POOL, asked)
    best = {fit.task: fit.best for fit in found.tasks}
    assert best == {task: max(POOL, key=lambda name: held_out(name, task)) for task in best}
    assert {one.expert for one in found.order[:3]} == {"facts", "list", "math"}
    assert found.order[3].adds < 0.05, "what it knows, math knows"

    right = asked["zoo_math"]
    answers, said = examples["zoo_math"], right.said["math"]
    model = live("math")
    tokens, n = read("math", answers[0].prompt, answers[0].answer or "")
    with torch.no_grad():
        p = model(tokens).logits[0, -n - 1 : -1].float().softmax(-1)
    own = p.gather(1, tokens[0, -n:, None])[:, 0]
    torch.testing.assert_close(
        torch.tensor([said[i, right.right[i]] for i in range(n)]), own, rtol=0.02, atol=1e-3
    )
    assert said.sum(1) == pytest.approx(1.0, abs=1e-4)


def test_compare_shows_it_when_asked(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.runs.retrieval._N_PROMPTS", 2)
    fewer = ["--set", "models.experts={math: zoo:math}"]
    found = CliRunner().invoke(cli.app, ["compare", str(file), "--answers", "--json", *fewer])
    assert found.exit_code == 0, found.output
    answers = json.loads(found.stdout)["answers"]
    assert [task["task"] for task in answers["tasks"]] == ["zoo_math", "zoo_list", "zoo_facts"]
    assert {task["n"] for task in answers["tasks"]} == {2}
    assert [one["expert"] for one in answers["order"]] == ["math"]


def test_models_that_are_not_finite_are_not_asked(file: Path, tmp_path: Path) -> None:
    shutil.copytree(zoo_path("math"), tmp_path / "bad")
    tensors = load_file(tmp_path / "bad" / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EvomergeError, match="got 1 NaN or infinite out of 96 in tensor model"):
        compare_answers(file, [f"models.experts={{math: {tmp_path / 'bad'}}}"])


@cache
def live(name: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(zoo_path(name))
    return model


@cache
def reader(name: str) -> Any:
    return AutoTokenizer.from_pretrained(zoo_path(name))


def held_out(name: str, task: str) -> float:
    """Share of held-out answers whose every token is the likeliest, by transformers alone."""
    model = live(name)
    lines = (TASKS / task / "test.jsonl").read_text().splitlines()[:8]
    hits = 0
    for item in map(json.loads, lines):
        answer = item["answer"] if "answer" in item else item["choices"][item["label"]]
        tokens, n = read(name, item["prompt"], f" {answer}")
        with torch.no_grad():
            hits += bool((model(tokens).logits[0, -n - 1 : -1].argmax(-1) == tokens[0, -n:]).all())
    return hits / len(lines)


def read(name: str, prompt: str, answer: str) -> tuple[torch.Tensor, int]:
    tokenizer = reader(name)
    start = len(tokenizer(prompt).input_ids)
    tokens = tokenizer(prompt + answer, return_tensors="pt").input_ids
    return tokens, tokens.shape[1] - start
