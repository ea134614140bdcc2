"""Barriers between models: high to a permuted copy, gone once it is aligned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from evomerge.cli import main as cli
from evomerge.config.presets import Presets
from evomerge.merging.sources import Sources
from evomerge.models.reference import AlignedRef, ModelRef
from evomerge.models.zoo import zoo_path
from evomerge.observation.examples import Example
from evomerge.observation.reading import tokenised
from evomerge.runs.barriers import Barrier, barriers
from tests.alignment.permuted import save_permuted

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
LINES = (TASKS / "zoo_math" / "search.jsonl").read_text().splitlines()[:12]
EXAMPLES = [Example(item["prompt"], f" {item['answer']}") for item in map(json.loads, LINES)]


def test_a_permuted_copy_is_behind_a_barrier_until_it_is_aligned(tmp_path: Path) -> None:
    base, copy = str(zoo_path("math")), str(tmp_path / "copy")
    save_permuted(zoo_path("math"), Path(copy), seed=1, with_stream=False)
    experts: dict[str, ModelRef] = {"copy": copy, "aligned": AlignedRef(copy, "weights")}
    found = {one.models: one for one in barriers(Sources(base, experts), experts, EXAMPLES)}
    assert list(found) == [("base", "copy"), ("base", "aligned"), ("copy", "aligned")]
    to_copy, to_aligned = found["base", "copy"], found["base", "aligned"]
    assert to_copy.losses[0] == pytest.approx(to_copy.losses[-1], rel=0.02)
    assert to_copy.height > 0.3
    assert to_aligned.height == pytest.approx(0.0, abs=1e-6)


def test_losses_are_those_of_the_models_themselves() -> None:
    folder = zoo_path("base")
    experts: dict[str, ModelRef] = {"math": "zoo:math"}
    sources = Sources("zoo:base", experts)
    (found,) = barriers(sources, experts, EXAMPLES)
    read = tokenised(EXAMPLES, sources.anchor)
    for name, loss in ((folder, found.losses[0]), (zoo_path("math"), found.losses[-1])):
        model = AutoModelForCausalLM.from_pretrained(name)
        total = n = 0.0
        for one in read.readings:
            tokens, k = torch.tensor([[*one.context, *one.continuation]]), len(one.continuation)
            with torch.no_grad():
                log_p = model(tokens).logits.float().log_softmax(-1)[0, -k - 1 : -1]
            total -= float(log_p.gather(1, tokens[0, -k:, None]).sum())
            n += k
        assert loss == pytest.approx(total / n, rel=0.02)


def test_the_height_is_over_the_chord() -> None:
    assert Barrier(("a", "b"), (1.0, 3.0, 2.0)).height == 1.5
    assert Barrier(("a", "b"), (1.0, 0.5, 2.0)).height == 0.0


def test_compare_shows_a_matrix_when_asked(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        "models: {base: zoo:base, experts: {math: zoo:math}}\nsearch_space: global_linear\n"
        "evaluators: [zoo]\nobjectives: [{task: zoo_math, metric: exact_match}]\n"
    )
    found = CliRunner().invoke(cli.app, ["compare", str(file), "--barrier"])
    assert found.exit_code == 0, found.output
    matrix = found.stdout.partition("Barriers: loss above")[2].split()
    first, second = matrix.index("base"), matrix.index("math")
    assert second == first + 1
    assert matrix.count("–") == 2
