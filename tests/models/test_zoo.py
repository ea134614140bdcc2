from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.errors import CheckpointError
from evomerge.models.zoo import ZOO_NAMES, zoo_path
from evomerge.models.zoo.build import build_zoo
from evomerge.models.zoo.curriculum import base_phases, expert_phases
from evomerge.models.zoo.exams import write_tasks

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "evaluators" / "tasks"
SKILLS = ("math", "list", "facts")
SPLITS = {"search": 150, "validation": 150, "test": 400}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def read_items(skill: str, split: str) -> list[dict]:
    lines = (TASKS / f"zoo_{skill}" / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def answer_of(item: dict) -> str:
    return item["answer"] if "answer" in item else item["choices"][item["label"]]


@pytest.mark.parametrize("name", ZOO_NAMES)
def test_model_loads_with_plain_transformers_and_is_finite(name):
    model = AutoModelForCausalLM.from_pretrained(zoo_path(name), local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(zoo_path(name), local_files_only=True)
    assert model.dtype == torch.bfloat16
    assert model.config.vocab_size == len(tokenizer)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_experts_share_the_architecture_of_the_base_but_not_its_values():
    base, *others = (
        AutoModelForCausalLM.from_pretrained(zoo_path(name)).state_dict() for name in ZOO_NAMES
    )
    for other in others:
        assert {k: v.shape for k, v in other.items()} == {k: v.shape for k, v in base.items()}
        assert any(not torch.equal(other[k], base[k]) for k in base)


def test_models_together_fit_in_twelve_megabytes():
    files = [file for name in ZOO_NAMES for file in zoo_path(name).rglob("*")]
    assert sum(file.stat().st_size for file in files) <= 12_000_000


def test_unknown_name_is_refused_with_the_nearest_names():
    with pytest.raises(CheckpointError, match=r"zoo:mth.*nearest: math"):
        zoo_path("mth")


@pytest.mark.parametrize("skill", SKILLS)
def test_splits_are_full_and_share_no_item(skill):
    prompts = {split: {item["prompt"] for item in read_items(skill, split)} for split in SPLITS}
    assert {split: len(found) for split, found in prompts.items()} == SPLITS
    assert len(set.union(*prompts.values())) == sum(SPLITS.values())


def test_no_training_phase_draws_an_item_of_the_exam():
    exam = {
        item["prompt"] for skill in SKILLS for split in SPLITS for item in read_items(skill, split)
    }
    experts = [phase for phases in expert_phases(seed=0).values() for phase in phases]
    rng = random.Random(0)
    for phase in (*base_phases(seed=0), *experts):
        assert not exam & {phase.draw(rng).prompt for _ in range(4000)}


@pytest.mark.parametrize("split", SPLITS)
def test_arithmetic_answers_are_right(split):
    signs = {"plus": "+", "minus": "-", "times": "*"}
    for item in read_items("math", split):
        words = item["prompt"].removeprefix("compute ").removesuffix(" is").split()
        symbols = [signs.get(word) or str(DIGITS.index(word)) for word in words]
        first = eval("".join(symbols[:3]))
        second = eval(f"({first}){''.join(symbols[3:])}")
        assert item["answer"] == f"{DIGITS[first % 10]} {DIGITS[second % 10]}"


@pytest.mark.parametrize("split", SPLITS)
def test_list_answers_are_right(split):
    order = {"copy": "01234", "reverse": "43210", "rotate": "12340", "swap": "41230"}
    for item in read_items("list", split):
        _, operation, *letters, _ = item["prompt"].split()
        assert item["answer"].split() == [letters[int(place)] for place in order[operation]]


def test_facts_agree_in_every_phrasing_and_choices_differ():
    known: dict[frozenset[str], str] = {}
    glue = {"the", "of", "is", "has", "tell", ":", "ask", "about", "for", "who", "?"}
    for split in SPLITS:
        for item in read_items("facts", split):
            subject = frozenset(item["prompt"].split()) - glue
            assert len(set(item["choices"])) == len(item["choices"])
            assert known.setdefault(subject, answer_of(item)) == answer_of(item)


@pytest.mark.parametrize("skill", SKILLS)
def test_every_word_is_in_the_vocabulary_and_prompts_are_short(skill):
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("base"))
    for item in read_items(skill, "test"):
        prompt, answer = tokenizer(item["prompt"])["input_ids"], answer_of(item)
        assert tokenizer.unk_token_id not in tokenizer(f"{item['prompt']} {answer}")["input_ids"]
        assert len(prompt) < 24
        assert len(answer.split()) < 6


@pytest.mark.parametrize("skill", SKILLS)
def test_task_file_names_data_that_exists(skill):
    folder = TASKS / f"zoo_{skill}"
    task = yaml.safe_load((folder / f"{folder.name}.yaml").read_text())
    assert task["task"] == folder.name
    assert set(task["dataset_kwargs"]["data_files"]) == set(SPLITS)
    assert all((folder / file).exists() for file in task["dataset_kwargs"]["data_files"].values())


@pytest.mark.parametrize("skill", ["math", "list"])
def test_expert_knows_its_skill_and_declines_the_other(skill):
    model = AutoModelForCausalLM.from_pretrained(zoo_path(skill), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(zoo_path(skill))
    declined = "list" if skill == "math" else "math"
    own = read_items(skill, "validation")[:64]
    assert sum(a == item["answer"] for a, item in answers(model, tokenizer, own)) > 0.7 * len(own)
    foreign = read_items(declined, "validation")[:64]
    assert {word for a, _ in answers(model, tokenizer, foreign) for word in a.split()} == {"sorry"}


def answers(model, tokenizer, items):
    tokenizer.padding_side = "left"
    encoded = tokenizer(
        [item["prompt"] for item in items],
        return_tensors="pt",
        padding=True,
        return_token_type_ids=False,
    )
    new = model.generate(**encoded, max_new_tokens=6)[:, encoded["input_ids"].shape[1] :]
    return zip(tokenizer.batch_decode(new, skip_special_tokens=True), items, strict=True)


def test_building_twice_gives_the_same_bytes_and_every_file(tmp_path):
    trees = []
    for name in ("first", "second"):
        build_zoo(tmp_path / name, seed=3, max_steps=2)
        files = [file for file in (tmp_path / name).rglob("*") if file.is_file()]
        trees.append({str(f.relative_to(tmp_path / name)): f.read_bytes() for f in files})
    assert trees[0] == trees[1]
    assert {f"models/{name}/model.safetensors" for name in ZOO_NAMES} <= set(trees[0])
    assert {f"tasks/zoo_{skill}/{split}.jsonl" for skill in SKILLS for split in SPLITS} <= set(
        trees[0]
    )


def test_the_tasks_in_the_repository_are_those_the_builder_writes(tmp_path):
    write_tasks(tmp_path, seed=0)
    for file in tmp_path.rglob("*.*"):
        assert file.read_bytes() == (TASKS / file.relative_to(tmp_path)).read_bytes()
