"""Experiments whose models have other vocabularies than the base."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError
from evomerge.execution.protocol import Job, Scored
from evomerge.execution.worker import Worker
from evomerge.models.zoo import zoo_path
from evomerge.runs.cost import experiment_facts
from evomerge.runs.loaded import Loaded

EXPERIMENT = """
models: {base: zoo:base, experts: {math: zoo:math, list: ./list}, tokenizer: {source: union}}
search_space: global_linear
evaluators: [zoo]
objectives: [{task: zoo_math, metric: exact_match}]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment whose second expert has one token more, and rows of padding."""
    root = tmp_path_factory.mktemp("experiment")
    model = AutoModelForCausalLM.from_pretrained(zoo_path("list"))
    reader = AutoTokenizer.from_pretrained(zoo_path("list"))
    reader.add_tokens(["<new>"])
    model.resize_token_embeddings(len(reader), pad_to_multiple_of=64, mean_resizing=False)
    model.save_pretrained(root / "list")
    reader.save_pretrained(root / "list")
    (root / "e.yaml").write_text(EXPERIMENT)
    return root


def loaded(folder: Path, *overrides: str) -> Loaded:
    return Loaded.of(load_experiment(folder / "e.yaml", Presets(None), overrides))


def test_check_says_what_becomes_of_how_many_rows(folder: Path) -> None:
    n = len(AutoTokenizer.from_pretrained(zoo_path("base")))
    head, base, math, other = dict(experiment_facts(loaded(folder)))["vocabulary"].split("\n")
    assert f"union of all tokens, {n + 1} in {n + 1} rows" in head
    assert base.strip() == f"base: {n} rows as they are, 1 taken from list"
    assert math.strip() == f"math: {n} rows as they are, 1 taken from list"
    assert f"list: {n + 1} rows as they are, " in other
    assert "without a token in the merge cut" in other


def test_check_says_whose_template_exports_carry(folder: Path, tmp_path: Path) -> None:
    copytree(zoo_path("math"), tmp_path / "chat")
    (tmp_path / "chat" / "chat_template.jinja").write_text("{{ messages }}")
    models = [f"models.experts.list={tmp_path / 'chat'}", "models.tokenizer=null"]
    said = dict(experiment_facts(loaded(folder, *models)))["vocabulary"]
    assert said == (
        "of base, with its chat template, special tokens and generation settings; another chat "
        "template have list (tokenizer.chat_template)"
    )


def test_candidates_are_scored_with_the_tokenizer_of_the_merge(folder: Path) -> None:
    one = loaded(folder)
    worker = Worker(one.worker)
    scored = worker.run(Job(0, one.space.recipe(one.space.defaults)))
    assert isinstance(scored, Scored)
    plain = Loaded.of(
        load_experiment(
            folder / "e.yaml",
            Presets(None),
            ["models.experts.list=zoo:list", "models.tokenizer=null"],
        )
    )
    expected = Worker(plain.worker).run(Job(0, plain.space.recipe(plain.space.defaults)))
    assert isinstance(expected, Scored)
    assert scored.scores.metrics == expected.scores.metrics  # no item has the new token


def test_vllm_and_unknown_names_are_refused_before_anything_is_loaded(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine: expected transformers for models whose voca"):
        loaded(folder, "engine=vllm")
    with pytest.raises(ConfigError, match=r"models\.tokenizer\.source: expected one of base, uni"):
        loaded(folder, "models.tokenizer.source=model:maths")
    with pytest.raises(ConfigError, match=r"models\.tokenizer\.chat_template: expected one of"):
        loaded(folder, "models.tokenizer.chat_template=chatml")
