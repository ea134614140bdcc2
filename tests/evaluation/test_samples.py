"""What people are shown of a task is what was scored."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.config.presets import Presets
from evomerge.evaluation.prepared import PreparedSuites
from evomerge.models.zoo import zoo_path
from evomerge.runs.parts import load_suites


@pytest.mark.parametrize("expert", ["math", "facts"])
def test_the_answer_is_the_gold_one_where_the_item_is_right(expert: str) -> None:
    folder = zoo_path(expert)
    model = AutoModelForCausalLM.from_pretrained(folder)
    suites = load_suites(["zoo"], Presets(), Path.cwd())
    prepared = PreparedSuites.of(suites, "search", model, AutoTokenizer.from_pretrained(folder))
    scores = prepared.score()
    samples = prepared.samples()
    assert samples.keys() == {task.name for task in prepared.tasks}
    for task in prepared.tasks:
        sample, row = samples[task.name], task.items[0].row
        assert sample.prompt == task.items[0].doc["prompt"]
        right = {
            s.score
            for s in scores.items
            if (s.task, s.item) == (task.name, row) and s.metric in ("acc", "exact_match")
        }
        assert right == {float(sample.answer.strip() == sample.gold.strip())}
