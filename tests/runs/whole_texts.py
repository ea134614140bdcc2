"""An experiment on whole texts: what is scored are logits of every token."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.runs.loaded import Loaded

__all__ = ["on_whole_texts"]


def on_whole_texts(folder: Path, n_items: int, n_words: int, batch_size: int | str) -> Loaded:
    """Write and load an experiment.

    Args:
        folder: With the models ``base`` and ``math``, of the tiny word-level tokenizer.
        n_items: Texts.
        n_words: Of each, which are its tokens.
        batch_size: Of the evaluator.
    """
    texts = [" ".join(f"w{(i * j) % 29}" for j in range(n_words)) for i in range(n_items)]
    (folder / "texts.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts))
    task = {
        "task": "texts",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "texts.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    (folder / "texts.yaml").write_text(yaml.safe_dump(task))
    evaluator = {"tasks": ["texts"], "include_path": str(folder), "splits": {"search": "test"}}
    (folder / "suite.yaml").write_text(yaml.safe_dump({**evaluator, "batch_size": batch_size}))
    content = {
        "models": {"base": str(folder / "base"), "experts": {"math": str(folder / "math")}},
        "search_space": "global_linear",
        "evaluators": [str(folder / "suite.yaml")],
        "objectives": [{"task": "texts", "metric": "bits_per_byte"}],
        "gates": "off",
        "sampler": "random",
        "finalists": 0,
        "execution": {"executor": "inline"},
    }
    (folder / "e.yaml").write_text(yaml.safe_dump(content))
    return Loaded.of(load_experiment(folder / "e.yaml", Presets()))
