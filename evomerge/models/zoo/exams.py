"""The zoo's lm-eval tasks: one folder each, a YAML file and one JSONL file per split."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from evomerge.models.zoo.curriculum import exam_streams
from evomerge.models.zoo.skills import Question
from evomerge.seeds import seed_for

__all__ = ["SPLIT_SIZES", "TASK_HEAD", "write_tasks"]

SPLIT_SIZES: Mapping[str, int] = {"search": 150, "validation": 150, "test": 400}

TASK_HEAD = """\
# {purpose}
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{search: search.jsonl, validation: validation.jsonl, test: test.jsonl}}
test_split: test
num_fewshot: 0
doc_to_text: "{{{{prompt}}}}"
"""
_GENERATE = """\
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 6}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
_CHOOSE = """\
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
_PURPOSE = {
    "math": "Arithmetic modulo ten over number words; the answer is every intermediate result.",
    "list": "Operations on lists of letters; the answer is the new list.",
    "facts": "Memorised facts about people, asked in a phrasing not trained for that fact.",
}


def write_tasks(out: Path, *, seed: int, sizes: Mapping[str, int] = SPLIT_SIZES) -> None:
    """Write ``out/zoo_SKILL/`` for every skill; no question is in two splits, or in training.

    Args:
        out: Folder for the tasks; files in it are overwritten.
        seed: Decides the facts and the order of the questions.
        sizes: Items per split.
    """
    for skill, stream in exam_streams(seed=seed).items():
        folder = out / f"zoo_{skill}"
        folder.mkdir(parents=True, exist_ok=True)
        questions = _distinct(stream)
        for split, size in sizes.items():
            rows = [_row(question, seed=seed) for question in islice(questions, size)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        head = TASK_HEAD.format(purpose=_PURPOSE[skill], name=folder.name)
        body = _CHOOSE if "choices" in rows[0] else _GENERATE
        (folder / f"{folder.name}.yaml").write_text(head + body, encoding="utf-8")


def _distinct(stream: Iterator[Question]) -> Iterator[Question]:
    seen: set[str] = set()
    for question in stream:
        if question.prompt not in seen:
            seen.add(question.prompt)
            yield question


def _row(question: Question, *, seed: int) -> dict[str, str | int | list[str]]:
    if not question.distractors:
        return {"prompt": question.prompt, "answer": question.answer}
    choices = [question.answer, *question.distractors]
    random.Random(seed_for(seed, "choices", question.prompt)).shuffle(choices)
    return {"prompt": question.prompt, "choices": choices, "label": choices.index(question.answer)}
