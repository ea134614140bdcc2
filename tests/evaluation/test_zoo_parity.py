"""The embedded models on their own tasks: the numbers of ``simple_evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.evaluation import PreparedSuites, Suite

from .test_prefix import passes
from .test_prepared import Reference, assert_equal

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "evomerge" / "models" / "zoo" / "models"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Suite:
    settings = yaml.safe_load((ROOT / "evaluators" / "zoo.yaml").read_text())
    folder = ROOT / "evaluators" / settings["include_path"]
    flat = tmp_path_factory.mktemp("zoo")  # the reference reads task files of one folder
    for path in folder.glob("**/*.yaml"):
        config = yaml.safe_load(path.read_text())
        files = config["dataset_kwargs"]["data_files"]
        absolute = {split: str(path.parent / name) for split, name in files.items()}
        config["dataset_kwargs"] = {"data_files": absolute}
        (flat / path.name).write_text(yaml.safe_dump(config))
    return Suite("zoo", tuple(settings["tasks"]), include_path=flat, splits=settings["splits"])


@pytest.mark.parametrize("name", ["math", "facts"])
def test_an_embedded_model_scores_as_simple_evaluate(name, zoo, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(MODELS / name)
    tokenizer = AutoTokenizer.from_pretrained(MODELS / name)
    scores = PreparedSuites.of([zoo], "validation", model, tokenizer).score()
    results = Reference(zoo, tmp_path / "r", "validation").score(model, tokenizer)
    assert_equal(scores, results)
    assert set(scores.metrics) == set(zoo.tasks)
    assert max(v.value for v in scores.metrics[f"zoo_{name}"].values()) > 0.5


def test_fixed_examples_run_once_score_as_simple_evaluate(zoo, tmp_path):
    for path in zoo.include_path.glob("*.yaml"):
        config = yaml.safe_load(path.read_text()) | {
            "num_fewshot": 6,
            "fewshot_split": "search",
            "fewshot_config": {"sampler": "first_n"},
        }
        (tmp_path / path.name).write_text(yaml.safe_dump(config))
    suite = dataclasses.replace(zoo, include_path=tmp_path, batch_size="auto")
    model = AutoModelForCausalLM.from_pretrained(
        MODELS / "facts", max_position_embeddings=128, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(MODELS / "facts")
    prepared = PreparedSuites.of([suite], "validation", model, tokenizer)
    with passes(model) as shapes:
        scores = prepared.score()
    assert sum(n == 1 and length >= 32 for n, length in shapes) == len(suite.tasks)
    results = Reference(suite, tmp_path / "r", "validation").score(model, tokenizer)
    assert_equal(scores, results)
