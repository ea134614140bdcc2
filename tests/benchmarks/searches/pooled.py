"""A task that holds the items of all embedded tasks: one objective, which is their mean.

Items of multiple choice are asked openly, with the gold choice as the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from evomerge.config.presets import Presets
from evomerge.study.folder import write_atomically

__all__ = ["EMBEDDED", "POOLED", "write_pooled"]

POOLED = "pooled"
EMBEDDED = Presets().names("evaluators")["zoo"].parent / "tasks"

_TASK = """\
task: pooled
dataset_path: json
dataset_kwargs:
  data_files: {search: search.jsonl, test: test.jsonl}
test_split: test
num_fewshot: 0
doc_to_text: "{{prompt}}"
output_type: generate_until
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, max_gen_toks: 6}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""


def write_pooled(folder: Path) -> None:
    """Write the task into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("search", "test"):
        lines = map(json.dumps, _items(split))
        write_atomically(folder / f"{split}.jsonl", "".join(f"{line}\n" for line in lines))
    write_atomically(folder / f"{POOLED}.yaml", _TASK)


def _items(split: str) -> Iterator[dict[str, str]]:
    for file in sorted(EMBEDDED.glob(f"zoo_*/{split}.jsonl")):
        for row in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            answer = row["answer"] if "answer" in row else row["choices"][row["label"]]
            yield {"prompt": row["prompt"], "answer": answer}
