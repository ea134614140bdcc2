"""One lm-eval task of every kind, as YAML with relative paths, and data: splits and examples."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import yaml

from evomerge.evaluation import Suite, TaskCatalogue
from evomerge.evaluation.language_model import LanguageModel

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = [*DIGITS, "plus", "minus", "is", "what", "?", "."]
N_ROWS = 24
NAMED = {"search": "search", "validation": "validation", "test": "test"}
DATA = [*NAMED, "train"]

GENERATE = {
    "output_type": "generate_until",
    "doc_to_text": "{{a}} plus {{b}} is",
    "doc_to_target": "{{c}}",
    "generation_kwargs": {"until": ["."], "max_gen_toks": 4, "do_sample": False},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}
TASKS: dict[str, dict[str, object]] = {
    "tiny_generate": GENERATE,
    "tiny_filters": GENERATE
    | {
        "doc_to_text": "what is {{a}} minus {{b}} ?",
        "filter_list": [
            {
                "name": "first",
                "filter": [
                    {"function": "regex", "regex_pattern": r"(\w+)"},
                    {"function": "take_first"},
                ],
            },
            {"name": "none", "filter": [{"function": "take_first"}]},
        ],
        "metric_list": [
            {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
            {"metric": "chrf", "aggregation": "chrf", "higher_is_better": True},
        ],
    },
    "tiny_choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{a}} plus {{b}} is",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [
            {"metric": name, "aggregation": "mean", "higher_is_better": True}
            for name in ("acc", "acc_norm")
        ],
    },
    "tiny_fewshot": {
        "output_type": "multiple_choice",
        "num_fewshot": 2,
        "fewshot_split": "train",
        "doc_to_text": "what is {{a}} plus {{b}} ?",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "gold",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    },
    "tiny_likelihood": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{a}} plus {{b}} is",
        "doc_to_target": " {{c}}",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
    },
    "tiny_rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{a}} plus {{b}} is {{c}}",
        "metric_list": [
            {"metric": name, "aggregation": aggregation, "higher_is_better": False}
            for name, aggregation in (
                ("word_perplexity", "weighted_perplexity"),
                ("bits_per_byte", "bits_per_byte"),
            )
        ],
    },
}
GROUP = {
    "group": "tiny_group",
    "task": ["tiny_choice", "tiny_fewshot"],
    "aggregate_metric_list": [{"metric": "acc", "aggregation": "mean", "weight_by_size": True}],
}


def write_task(folder: Path, name: str, **changes: object) -> None:
    """Write one of TASKS as YAML with relative data files; a change to None drops the key."""
    config = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {s: f"data/{s}.jsonl" for s in DATA}},
        "test_split": "test",
        "metadata": {"version": 1},
        **TASKS.get(name, GENERATE),
        **changes,
    }
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(kept))


def write_data(folder: Path, rows: int = N_ROWS) -> None:
    (folder / "data").mkdir(exist_ok=True)
    for split in DATA:
        generator = random.Random(split)
        lines = []
        for i in range(rows):
            a, b = generator.randrange(5), generator.randrange(5)
            choices = [DIGITS[a + b], *generator.sample(DIGITS, 2), f"{DIGITS[a]} {DIGITS[b]}"]
            generator.shuffle(choices)
            row = {
                "id": f"row{i}.",
                "a": DIGITS[a],
                "b": DIGITS[b],
                "c": DIGITS[a + b],
                "choices": choices,
            }
            lines.append(json.dumps(row | {"gold": choices.index(DIGITS[a + b])}))
        (folder / "data" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")


def metrics_of(
    suites: Sequence[Suite], model: LanguageModel | None = None
) -> dict[str, tuple[str, ...]]:
    """Check suites as an experiment's are, and name the metrics of their tasks."""
    found = TaskCatalogue.of(suites, model)
    return {**found.metrics, **found.reported}
