"""The family's lm-eval tasks: one folder each, a YAML file and one JSONL file per split."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from evomerge.models.zoo.exams import TASK_HEAD
from evomerge.models.zoo.smollm2.items import Exercise
from evomerge.models.zoo.smollm2.lexicon import kind_item, name_item
from evomerge.models.zoo.smollm2.stories import french_problem, problem, reading
from evomerge.seeds import seed_for

__all__ = ["EXAMS", "SIZES", "write_exams"]

SIZES = {"search": 120, "validation": 120, "test": 240}
_PATIENCE = 2000  # draws in a row that give nothing new: the split is used up


@dataclass(frozen=True)
class Exam:
    """One task.

    Attributes:
        purpose: First line of its file.
        draw: Gives an item of a split.
        tokens: Most tokens an answer may have.
        ignored: Patterns cut out of what a model says, and of the answer, before they are compared.
    """

    purpose: str
    draw: Callable[[random.Random, str], Exercise]
    tokens: int
    ignored: tuple[str, ...]


_LAST_NUMBER = (r"\D+$", r"^.*\D(?=\d)")
_FIRST_WORD = (r"^(an?|the) ", r"(?<=\w)\W.*$")
EXAMS = {
    "smollm2_math": Exam(
        "Word problems in English, one sum or difference; the last number of the answer counts.",
        *(problem, 12, _LAST_NUMBER),
    ),
    "smollm2_french": Exam(
        "Reading in French: which of two numbers is asked for; the last number counts.",
        *(reading, 8, _LAST_NUMBER),
    ),
    "smollm2_names": Exam(
        "English names of countries, regions and languages that are given in French (CLDR).",
        *(name_item, 12, (r"[\s.,;!]+$",)),
    ),
    "smollm2_kinds": Exam(
        "What kind of thing a noun names (hypernyms of WordNet 3.0); the first word counts.",
        *(kind_item, 6, _FIRST_WORD),
    ),
    "smollm2_french_math": Exam(
        "Word problems in French, which no model is trained for; the last number counts.",
        *(french_problem, 12, _LAST_NUMBER),
    ),
}
_BODY = """\
output_type: generate_until
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], do_sample: false, max_gen_toks: {tokens}}}
filter_list:
  - {{name: strip, filter: [{{function: remove_whitespace}}, {{function: take_first}}]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, regexes_to_ignore: {ignored}}}
metadata: {{version: 1.0}}
"""


def write_exams(out: Path, *, seed: int) -> None:
    """Write ``out/NAME/`` for every exam; its splits share no item, word or question.

    Args:
        out: Folder for the tasks; files in it are overwritten.
        seed: Decides which items of a split are asked, and their order.
    """
    for name, exam in EXAMS.items():
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, size in SIZES.items():
            rng = random.Random(seed_for(seed, "exam", name, split))
            rows = islice(_distinct(lambda: exam.draw(rng, split)), size)  # noqa: B023
            text = "".join(json.dumps(vars(row), ensure_ascii=False) + "\n" for row in rows)
            (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
        head = TASK_HEAD.format(purpose=exam.purpose, name=name)
        body = _BODY.format(tokens=exam.tokens, ignored=json.dumps(exam.ignored))
        (folder / f"{name}.yaml").write_text(head + body, encoding="utf-8")


def _distinct(draw: Callable[[], Exercise]) -> Iterator[Exercise]:
    """Draw items whose prompts differ, until no new one comes."""
    seen: set[str] = set()
    drawn = 0
    while drawn < _PATIENCE:
        item, drawn = draw(), drawn + 1
        if item.prompt not in seen:
            seen.add(item.prompt)
            drawn = 0
            yield item
