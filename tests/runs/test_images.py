"""Tasks with images, in searches over models of vision and language."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("PIL")
import lm_eval
import numpy as np
from datasets import Dataset, Features, Image, Value
from lm_eval.models.hf_vlms import HFMultimodalLM
from lm_eval.tasks import TaskManager
from PIL import Image as Pillow
from transformers import AutoModelForImageTextToText, AutoProcessor

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.evaluation import images
from evomerge.evaluation.content import item_digests
from evomerge.execution.protocol import Job, Scored
from evomerge.execution.worker import Worker
from evomerge.export.rescore import score_folder
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.cost import experiment_facts
from evomerge.runs.inputs import input_digests, require_same
from evomerge.runs.loaded import Loaded
from tests.tiny import WORDS
from tests.vision_language import IMAGE_TOKEN, save_processor, text_model, vlm

LOOKING = {
    "dataset_path": "parquet",
    "output_type": "generate_until",
    "doc_to_text": "{{question}} <image> w5",
    "doc_to_image": ["image"],
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["w10"], "max_gen_toks": 5, "do_sample": False},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
        {"metric": "chrf", "aggregation": "chrf", "higher_is_better": True},
    ],
    "metadata": {"version": 1},
}
TEXT = {"doc_to_text": "{{question}} w5", "doc_to_image": None}
SPLITS = {"search": 6, "validation": 1, "test": 1}
QUESTIONS = ["w3 w4", "w3"]


def write_images(folder: Path, answers: dict[int, str] | None = None, seed: int = 0) -> None:
    """Write noise of various sizes, with questions of which half are the same."""
    draw = np.random.default_rng(seed)
    features = Features(image=Image(), question=Value("string"), answer=Value("string"))
    for split, n in SPLITS.items():
        rows: dict[str, list[Any]] = {"image": [], "question": [], "answer": []}
        for i in range(n):
            pixels = draw.integers(0, 256, (20 + 9 * i, 33, 3), dtype=np.uint8)
            rows["image"].append(Pillow.fromarray(pixels))
            rows["question"].append(QUESTIONS[i % 2])
            rows["answer"].append((answers or {}).get(i, "w1 w2 w3"))
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")


def write_task(folder: Path, name: str = "looking", **changes: Any) -> None:
    files = {split: f"{split}.parquet" for split in SPLITS}
    content = {"task": name, **LOOKING, "dataset_kwargs": {"data_files": files}} | changes
    kept = {key: value for key, value in content.items() if value is not None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(kept | {"test_split": "search"}))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LLaVAs, the first with a processor, and two tasks."""
    root = tmp_path_factory.mktemp("images")
    for seed, name in ((0, "base"), (2, "one")):
        vlm(root / name, "llava", seed)
    save_processor(root / "base")
    write_images(root)
    write_task(root)
    write_task(root, "reading", **TEXT)
    return root


def loaded(place: Path, file: Path, **changes: Any) -> Loaded:
    file.write_text(yaml.safe_dump(experiment(place) | changes))
    return Loaded.of(load_experiment(file, Presets()))


def experiment(place: Path) -> dict[str, Any]:
    return {
        "models": {"base": str(place / "base"), "experts": {"one": str(place / "one")}},
        "search_space": "global_linear",
        "evaluators": [evaluator(place, "looking", "reading")],
        "objectives": [{"task": task, "metric": "exact_match"} for task in ("looking", "reading")],
    }


def evaluator(place: Path, *tasks: str, **more: Any) -> dict[str, Any]:
    splits = {split: split for split in SPLITS}
    own = {"tasks": [*tasks], "include_path": str(place), "splits": splits, "batch_size": 4}
    return own | more


def by_transformers(folder: Path, data: Path) -> list[str]:
    """Answer the items of the search one by one, with nothing but transformers and datasets."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    found = []
    for row in Dataset.from_parquet(str(data / "search.parquet")):
        text = f"{row['question']} {WORDS[IMAGE_TOKEN]} w5"
        inputs = processor(images=[row["image"]], text=text, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0]
        said = processor.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        found.append(said.split("w10")[0])
    return found


def by_lm_eval(folder: Path, tasks: Path, name: str, *, chat: bool = False) -> dict[str, Any]:
    model = HFMultimodalLM(str(folder), batch_size=4, device="cpu")
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model, tasks=[name], task_manager=manager, bootstrap_iters=0, apply_chat_template=chat
    )
    return found


def test_a_trial_scores_what_lm_eval_finds_in_its_export(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the answers are right; the same question has different ones. Text runs beside it."""
    rule = Rule("linear", {"coefficient": 0.1})
    recipe = Recipe({"one": str(place / "one")}, (rule,), base=str(place / "base"))
    out, tasks = tmp_path / "out", tmp_path / "tasks"
    write_checkpoint(recipe, out)
    answers = by_transformers(out, place)
    tasks.mkdir()
    write_images(tasks, {i: answers[i] for i in (0, 1, 4)})
    for name, changes in (("looking", {}), ("chatting", {}), ("reading", TEXT)):
        write_task(tasks, name, **changes)
    chatting = evaluator(tasks, "chatting", apply_chat_template=True)
    evaluators = [evaluator(tasks, "looking", "reading"), chatting]
    parts = loaded(place, tmp_path / "e.yaml", evaluators=evaluators)
    outcome = Worker(parts.worker).run(Job(0, recipe))
    assert isinstance(outcome, Scored), outcome
    scores = outcome.scores
    print(answers, scores)
    assert len({*answers}) > 3
    monkeypatch.chdir(tasks)  # where the reference finds the data
    for name in ("looking", "chatting"):
        expected = by_lm_eval(out, tasks, name, chat=name == "chatting")["results"][name]
        for metric in ("exact_match", "chrf"):
            assert scores.metrics[name][metric].value == expected[f"{metric},none"]
    assert scores.metrics["looking"]["exact_match"].value == 0.5
    assert scores.metrics["chatting"]["chrf"] != scores.metrics["looking"]["chrf"]
    again = score_folder(out, parts.suites, "search").scores
    assert again.metrics == scores.metrics
