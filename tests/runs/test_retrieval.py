"""Answers on search items tell which expert of a pool is for which held-out task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from evomerge.analysis.retrieval import retrieve
from evomerge.cli import main as cli
from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
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
    model = AutoModelForCausalLM.from_pretrained(zoo_path("math"))
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
    found = CliRunner().invoke(cli.app, ["compare", str(file), "--answers", "--json"])
    assert found.exit_code == 0, found.output
    answers = json.loads(found.stdout)["answers"]
    assert [task["task"] for task in answers["tasks"]] == ["zoo_math", "zoo_list", "zoo_facts"]
    assert {task["n"] for task in answers["tasks"]} == {2}
    assert sorted(one["expert"] for one in answers["order"]) == sorted(POOL)


def held_out(name: str, task: str) -> float:
    """Share of held-out answers whose every token is the likeliest, by transformers alone."""
    model = AutoModelForCausalLM.from_pretrained(zoo_path(name))
    lines = (TASKS / task / "test.jsonl").read_text().splitlines()[:12]
    hits = 0
    for item in map(json.loads, lines):
        answer = item["answer"] if "answer" in item else item["choices"][item["label"]]
        tokens, n = read(name, item["prompt"], f" {answer}")
        with torch.no_grad():
            hits += bool((model(tokens).logits[0, -n - 1 : -1].argmax(-1) == tokens[0, -n:]).all())
    return hits / len(lines)


def read(name: str, prompt: str, answer: str) -> tuple[torch.Tensor, int]:
    tokenizer = AutoTokenizer.from_pretrained(zoo_path(name))
    start = len(tokenizer(prompt).input_ids)
    tokens = tokenizer(prompt + answer, return_tensors="pt").input_ids
    return tokens, tokens.shape[1] - start
