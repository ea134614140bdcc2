"""No prompt shows the answer to its own item, or an item that is held out."""

from __future__ import annotations

import dataclasses
import json

import pytest
import yaml

from evomerge.errors import EvaluationError
from evomerge.evaluation import Suite
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.requests import PreparedTask, prepare_split
from evomerge.evaluation.selection import select_items
from evomerge.evaluation.tasks import load_suite

from .tiny_tasks import metrics_of

N = 20
SHARES = {"search": 0.6, "validation": 0.2, "test": 0.2}
NAMED = {"search": "search", "validation": "validation", "test": "test"}
DATA = (*NAMED, "train")


def rows_of(split: str) -> list[dict[str, str]]:
    return [{"q": f"{split} {i} is", "a": f"answer{i} of {split}"} for i in range(N)]


@pytest.fixture
def write(tmp_path):
    """Write the task ``own``, whose questions and answers are all different."""
    for split in DATA:
        lines = (json.dumps(row) for row in rows_of(split))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(lines) + "\n")

    def write(splits, **changes) -> Suite:
        config = {
            "task": "own",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {split: f"{split}.jsonl" for split in DATA}},
            "test_split": "test",
            "num_fewshot": 3,
            "output_type": "generate_until",
            "doc_to_text": "{{q}}",
            "doc_to_target": "{{a}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
            "metric_list": [{"metric": "exact_match"}],
        } | changes
        kept = {key: value for key, value in config.items() if value is not None}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(kept))
        return Suite("mine", ("own",), include_path=tmp_path, splits=splits)

    return write


def built(suite: Suite, split: str) -> PreparedTask:
    with clean_harness():
        return prepare_split(load_suite(suite), split, None)[0]


def shown(prompt: str, split: str) -> set[int]:
    """Which rows of a dataset split a prompt gives the answers of."""
    return {i for i, row in enumerate(rows_of(split)) if f"{row['q']} {row['a']}" in prompt}


SOURCES = {
    "the scored split": {},
    "the scored split by name": {"fewshot_split": "test"},
    "its validation split": {"test_split": None, "validation_split": "validation"},
    "its training split": {"training_split": "search"},
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("sampler", ["default", "first_n"])
@pytest.mark.parametrize("splits", [SHARES, NAMED, {"test": 1.0}, {"test": "test"},
                                    {"search": "train", "test": 0.5}], ids=str)  # fmt: skip
def test_examples_are_search_items_but_never_the_item(write, splits, sampler, source):
    suite = write(splits, fewshot_config={"sampler": sampler}, **SOURCES[source])
    own = "validation" if "validation" in source else "test"
    scored = {s: v if isinstance(v, str) else own for s, v in splits.items()}
    donor = "search" if "search" in splits else "test"
    allowed = set(select_items(suite, "own", donor, N))
    named = SOURCES[source].get("training_split") or SOURCES[source].get("fewshot_split") or own
    for split in splits:
        task = built(suite, split)
        for item in task.items:
            prompt = item.requests[0].args[0]
            examples = {(s, i) for s in DATA for i in shown(prompt, s)}
            assert len(examples) == 3
            assert (scored[split], item.row) not in examples
            if named in scored.values():
                assert examples <= {(scored[donor], row) for row in allowed}
            else:
                assert {s for s, _ in examples} == {named}


def test_prompts_are_the_same_every_time(write):
    suite = write(SHARES)
    first, again = built(suite, "search"), built(suite, "search")
    assert [i.requests[0].args for i in first.items] == [i.requests[0].args for i in again.items]
    assert len({item.requests[0].args[0].rpartition("\n\n")[0] for item in first.items}) > 3


def test_items_beyond_a_limit_can_be_examples(write):
    """They are neither scored nor held out."""
    suite = dataclasses.replace(write(SHARES), limit=2)
    assert [len(shown(i.requests[0].args[0], "test")) for i in built(suite, "search").items] == [
        3, 3,
    ]  # fmt: skip


def test_as_many_examples_as_there_are_others(write):
    suite = write(SHARES, num_fewshot=11)
    for item in built(suite, "search").items:
        assert len(shown(item.requests[0].args[0], "test")) == 11
    write(SHARES, num_fewshot=12)
    assert len(shown(built(suite, "test").items[0].requests[0].args[0], "test")) == 12
    with pytest.raises(EvaluationError, match=r"expected 12 examples .* got 11 that are neither"):
        metrics_of([suite])


def test_a_row_that_reads_like_the_item_is_no_example(write, tmp_path):
    rows = [{"id": i, "q": f"test {i // 2} is", "a": f"answer{i // 2} of test"} for i in range(N)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = {"data_files": {"test": "pairs.jsonl"}}
    suite = write({"search": 1.0}, num_fewshot=9, dataset_kwargs=files)
    for item in built(suite, "search").items:
        assert item.row // 2 not in shown(item.requests[0].args[0], "test")


def test_the_item_in_other_data_is_no_example(write, tmp_path):
    suite = write(NAMED, fewshot_split="train", num_fewshot=10)
    (tmp_path / "train.jsonl").write_text((tmp_path / "search.jsonl").read_text())
    for item in built(suite, "search").items:
        examples = shown(item.requests[0].args[0], "search")
        assert len(examples) == 10
        assert item.row not in examples


def test_examples_processed_their_own_way_must_come_from_other_data(write, tmp_path):
    suite = dataclasses.replace(write(SHARES), allow_code=True)
    (tmp_path / "mine.py").write_text("def examples(docs): return docs.map(lambda d: d)\n")
    text = (tmp_path / "own.yaml").read_text()
    (tmp_path / "own.yaml").write_text(
        text + "fewshot_config: {process_docs: !function mine.examples}\n"
    )
    with pytest.raises(EvaluationError, match="cannot be told from its own example"):
        metrics_of([suite])
    (tmp_path / "own.yaml").write_text(
        text + "fewshot_config: {process_docs: !function mine.examples, split: train}\n"
    )
    assert metrics_of([suite])
