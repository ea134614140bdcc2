"""The cache of scores: any input that matters is noticed; where it is and how old it is are not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from evomerge.evaluation import prepared
from evomerge.evaluation.suite import Suite
from evomerge.execution import worker
from evomerge.execution.protocol import Job, Scored, WorkerSpec
from evomerge.execution.worker import Worker
from evomerge.merging.candidate import LiveCandidate
from evomerge.models.zoo import zoo_path
from evomerge.recipe.recipe import Recipe, Rule

CODE = """from beside_score import points

def process_results(doc, results):
    return {"mine": points(results[0], doc["answer"])}
"""
BESIDE = """def points(answer, wanted):
    return float(answer.strip() == wanted)
"""
TASK = """task: mine
dataset_path: json
dataset_kwargs: {data_files: {test: items.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: '{{question}}'
doc_to_target: '{{answer}}'
process_results: !function score.process_results
generation_kwargs: {until: ['.'], max_gen_toks: 3, do_sample: false}
metric_list: [{metric: mine, aggregation: mean, higher_is_better: true}]
"""
CHAT = "{% for m in messages %}{{ m.content }} {% endfor %}"


class World:
    """Models and a task in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("base", "math"):
            shutil.copytree(zoo_path(name), root / name)
            self.edit_json(f"{name}/tokenizer_config.json", chat_template=CHAT)
        (root / "tasks").mkdir()
        (root / "tasks" / "mine.yaml").write_text(TASK)
        (root / "tasks" / "score.py").write_text(CODE)
        (root / "tasks" / "beside_score.py").write_text(BESIDE)
        rows = [{"question": f"one plus {word} is", "answer": "two"} for word in ("one", "two")]
        (root / "tasks" / "items.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def edit_json(self, file: str, **changes: object) -> None:
        content = json.loads((self.root / file).read_text())
        (self.root / file).write_text(json.dumps(content | changes))

    def spec(self, **changes: object) -> WorkerSpec:
        suite = Suite(
            name="mine",
            tasks=("mine",),
            include_path=self.root / "tasks",
            splits={"search": "test"},
            allow_code=True,
            apply_chat_template=True,
        )
        suite = replace(suite, **changes)
        return WorkerSpec(str(self.root / "base"), {"math": str(self.root / "math")}, (suite,))


def swap_tokens(world: World) -> None:
    for name in ("base", "math"):
        file = world.root / name / "tokenizer.json"
        content = json.loads(file.read_text())
        words = content["model"]["vocab"]
        words["one"], words["two"] = words["two"], words["one"]
        file.write_text(json.dumps(content))


def decode_otherwise(world: World) -> None:
    """The prompts keep their tokens, the answers get another text."""
    file = world.root / "base" / "tokenizer.json"
    content = json.loads(file.read_text())
    content["decoder"] = {"type": "Replace", "pattern": {"String": "o"}, "content": "0"}
    file.write_text(json.dumps(content))


def change_chat_template(world: World) -> None:
    world.edit_json("base/tokenizer_config.json", chat_template=CHAT.replace("}} ", "}} . "))


def change_special_token(world: World) -> None:
    world.edit_json("base/tokenizer_config.json", eos_token="two")


def change_weight(world: World) -> None:
    """One element, in a file of the same size and times."""
    file = world.root / "math" / "model.safetensors"
    before, tensors = file.stat(), load_file(file)
    tensors[min(tensors)].view(-1)[0] += 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size


def change_config(world: World) -> None:
    world.edit_json("base/config.json", rms_norm_eps=1e-3)


def change_end_of_answers(world: World) -> None:
    world.edit_json("base/generation_config.json", eos_token_id=5)


def change_item(world: World) -> None:
    file = world.root / "tasks" / "items.jsonl"
    file.write_text(file.read_text().replace('"answer": "two"', '"answer": "three"', 1))


def change_generation(world: World) -> None:
    (world.root / "tasks" / "mine.yaml").write_text(TASK.replace("toks: 3", "toks: 2"))


def change_code(world: World) -> None:
    (world.root / "tasks" / "score.py").write_text(CODE.replace("points(", "1 - points("))


def change_code_beside(world: World) -> None:
    (world.root / "tasks" / "beside_score.py").write_text(BESIDE.replace("==", "!="))


def touch(world: World) -> None:
    for file in world.root.rglob("*.*"):
        os.utime(file, (1, 1))


def move(world: World) -> None:
    world.root = world.root.rename(world.root.with_name("elsewhere"))


@pytest.fixture
def merges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[WorkerSpec], int]:
    """Runs one recipe with a fresh worker and tells how many merges that took: 0 if cached."""
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "world" / "tasks"))
    merged: list[Recipe] = []
    original = LiveCandidate.materialise
    monkeypatch.setattr(
        LiveCandidate, "materialise", lambda self, r: (merged.append(r), original(self, r))[1]
    )

    def run(spec: WorkerSpec) -> int:
        merged.clear()
        rules = (Rule("task_arithmetic", {"coefficient": 0.3}),)
        outcome = Worker(spec).run(Job(0, Recipe(spec.experts, rules, spec.base)))
        assert isinstance(outcome, Scored), outcome
        return len(merged)

    return run


@pytest.mark.parametrize(
    "change",
    [
        swap_tokens,
        decode_otherwise,
        change_chat_template,
        change_special_token,
        change_weight,
        change_config,
        change_end_of_answers,
        change_item,
        change_generation,
        change_code,
        change_code_beside,
    ],
    ids=lambda change: change.__name__,
)
def test_scored_anew_after(change, merges, tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    assert merges(world.spec()) == 1
    change(world)
    assert merges(world.spec()) == 1


@pytest.mark.parametrize("change", [touch, move], ids=lambda change: change.__name__)
def test_not_scored_anew_after(change, merges, tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    assert merges(world.spec()) == 1
    change(world)
    assert merges(world.spec()) == 0


@pytest.mark.parametrize("library", ["lm_eval", "ours"])
def test_scored_anew_by_another_version(
    library: str, merges, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path / "world")
    assert merges(world.spec()) == 1
    if library == "ours":
        monkeypatch.setattr(worker, "SCORING", worker.SCORING + 1)
    else:
        monkeypatch.setattr(prepared, "version", lambda n: "0.0" if n == library else version(n))
    assert merges(world.spec()) == 1
