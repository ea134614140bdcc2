"""What models should write where a task generates: embedded models that show their working."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.evaluation import PreparedSuites, Suite

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "evomerge" / "models" / "zoo" / "models"
NAMES = ("base", "math", "list", "facts")
LAST = {"function": "regex", "regex_pattern": r"(\w+)\s*$"}
SECOND = {"function": "regex", "regex_pattern": r"^\w+ (\w+)\s*$"}


@pytest.fixture(scope="module")
def zoo():
    """A live model, what puts an embedded one into it, and its tokenizer."""
    found = {name: AutoModelForCausalLM.from_pretrained(MODELS / name) for name in NAMES}
    states = {name: model.state_dict() for name, model in found.items()}
    model = AutoModelForCausalLM.from_pretrained(MODELS / "base", dtype=torch.float32)

    def become(name: str) -> None:
        model.load_state_dict(states[name])

    return model, become, AutoTokenizer.from_pretrained(MODELS / "base")


def suite_of(folder: Path, *tasks: str, pattern: dict | None = None) -> Suite:
    """The embedded tasks; with a pattern, arithmetic whose gold text is the last word only."""
    for task in tasks:
        (source,) = (ROOT / "evaluators" / "tasks" / task).glob("*.yaml")
        config = yaml.safe_load(source.read_text())
        files = config["dataset_kwargs"]["data_files"]
        config["dataset_kwargs"]["data_files"] = {
            split: str(source.parent / name) for split, name in files.items()
        }
        if pattern is not None:
            config["doc_to_target"] = "{{answer.split(' ') | last}}"
            filters = [pattern, {"function": "take_first"}]
            config["filter_list"] = [{"name": "last", "filter": filters}]
        (folder / source.name).write_text(yaml.safe_dump(config))
    return Suite("zoo", tasks, include_path=folder, splits={"search": "search"}, limit=30)


@pytest.mark.parametrize("pattern", [LAST, SECOND], ids=["accepted", "not accepted"])
def test_answers_with_their_working_are_learnt_from_the_parent_that_is_right(
    pattern, zoo, tmp_path
):
    model, become, tokenizer = zoo
    objectives = [("zoo_math", "exact_match,last")]
    prepared = PreparedSuites.of(
        [suite_of(tmp_path, "zoo_math", pattern=pattern)], "search", model, tokenizer
    )

    def parents() -> Iterator[None]:
        for name in NAMES:
            become(name)
            yield

    learnt = prepared.losses(objectives, parents=parents)
    said = {item.row: tokenizer.decode(item.readings[0].continuation) for item in learnt.items(0)}
    working = {item.row: item.doc["answer"] for item in prepared.tasks[0].items}
    become("math")
    scores = {item.item: item.score for item in prepared.score().items}
    assert {row for row, score in scores.items() if score == 1.0} <= set(said)
    assert np.mean([said[row] == working[row] for row in said]) > 0.9
    assert all(text.split()[-1] == working[row].split()[-1] for row, text in said.items())
    right = learnt.backward(0, range(learnt.n_items[0]))
    become("facts")
    wrong = learnt.backward(0, range(learnt.n_items[0]))
    assert right < 0.1
    assert wrong > 2


def test_gold_texts_stay_where_parents_that_are_right_write_them(zoo, tmp_path):
    model, become, tokenizer = zoo
    prepared = PreparedSuites.of([suite_of(tmp_path, "zoo_math")], "search", model, tokenizer)
    asked: list[str] = []

    def parents() -> Iterator[None]:
        for name in ("base", "math"):
            become(name)
            asked.append(name)
            yield

    losses = prepared.losses([("zoo_math", "exact_match")], parents=parents)
    assert asked == ["base", "math"]  # a few items, once
    golds = {item.row: item.doc["answer"] for item in prepared.tasks[0].items}
    said = {i.row: tokenizer.decode(i.readings[0].continuation) for i in losses.items(0)}
    assert said == golds


def test_losses_of_embedded_models_order_them_as_accuracies_do(zoo, tmp_path):
    """Also between them: half-way from the base to an expert, both are."""
    model, become, tokenizer = zoo
    tasks = ("zoo_math", "zoo_list", "zoo_facts")
    objectives = [("zoo_math", "exact_match"), ("zoo_list", "exact_match"), ("zoo_facts", "acc")]
    prepared = PreparedSuites.of([suite_of(tmp_path, *tasks)], "search", model, tokenizer)
    losses = prepared.losses(objectives)
    found: list[list[tuple[float, float]]] = [[] for _ in objectives]

    def look() -> None:
        metrics = prepared.score().metrics
        for k, (task, metric) in enumerate(objectives):
            loss = losses.backward(k, range(losses.n_items[k]))
            found[k].append((loss, metrics[task][metric].value))

    become("base")
    base = {key: value.clone() for key, value in model.state_dict().items()}
    look()
    for name in NAMES[1:]:
        become(name)
        look()
        tip = model.state_dict()
        model.load_state_dict({key: torch.lerp(base[key], tip[key], 0.5) for key in base})
        look()
    for pairs in found:
        values = np.array(pairs)
        assert np.ptp(values[:, 1]) > 0.3
        assert np.corrcoef(values.T)[0, 1] < -0.8
