"""Tasks with images, in searches over models of vision and language."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("PIL")
import lm_eval
import numpy as np
from datasets import Dataset, Features, Image, Value
from lm_eval.models.hf_vlms import HFMultimodalLM
from lm_eval.tasks import TaskManager
from PIL import Image as Pillow

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.execution.protocol import Job, Scored
from evomerge.execution.worker import Worker
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.loaded import Loaded
from tests.vision_language import save_processor, text_model, vlm

TASK = {
    "dataset_path": "parquet",
    "output_type": "generate_until",
    "doc_to_text": "{{question}} <image> w5",
    "doc_to_image": ["image"],
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["w9"], "max_gen_toks": 5, "do_sample": False},
    "metric_list": [
        {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True},
        {"metric": "chrf", "aggregation": "chrf", "higher_is_better": True},
    ],
    "metadata": {"version": 1},
}
SPLITS = {"search": 6, "validation": 2, "test": 2}
ANSWERS = [f"w{i} w{i + 1}" for i in range(6)]


def write_images(folder: Path, seed: int = 0) -> None:
    """Write noise of various sizes, with questions of which some are the same."""
    draw = np.random.default_rng(seed)
    features = Features(image=Image(), question=Value("string"), answer=Value("string"))
    for split, n in SPLITS.items():
        rows: dict[str, list[Any]] = {"image": [], "question": [], "answer": []}
        for i in range(n):
            pixels = draw.integers(0, 256, (20 + 9 * i, 33, 3), dtype=np.uint8)
            rows["image"].append(Pillow.fromarray(pixels))
            rows["question"].append("w3" if i % 2 else "w3 w4")
            rows["answer"].append(ANSWERS[i])
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")


def write_task(folder: Path, name: str = "looking", **changes: Any) -> None:
    files = {split: str(folder / f"{split}.parquet") for split in SPLITS}
    content = {"task": name, **TASK, "dataset_kwargs": {"data_files": files}} | changes
    content["test_split"] = "search"
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LLaVAs, the first with a processor, and a task."""
    root = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(("base", "one")):
        vlm(root / name, "llava", seed)
    save_processor(root / "base")
    write_images(root)
    write_task(root)
    return root


def experiment(place: Path, **changes: Any) -> dict[str, Any]:
    names = {split: split for split in SPLITS}
    own = {"tasks": ["looking"], "include_path": str(place), "splits": names, "batch_size": 4}
    return {
        "models": {"base": str(place / "base"), "experts": {"one": str(place / "one")}},
        "search_space": "global_linear",
        "evaluators": [own, "zoo"],
        "objectives": [
            {"task": "looking", "metric": "exact_match"},
            {"task": "zoo_math", "metric": "exact_match"},
        ],
    } | changes


def loaded(folder: Path, content: dict[str, Any]) -> Loaded:
    file = folder / "e.yaml"
    file.write_text(yaml.safe_dump(content))
    return Loaded.of(load_experiment(file, Presets()))


def test_a_trial_scores_what_lm_eval_finds_in_its_export(place: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    recipe = Recipe(
        {"one": str(place / "one")},
        (Rule("linear", {"coefficient": 0.6}),),
        base=str(place / "base"),
    )
    worker = Worker(loaded(tmp_path, experiment(place)).worker)
    outcome = worker.run(Job(0, recipe, wants_samples=True))
    assert isinstance(outcome, Scored), outcome
    write_checkpoint(recipe, tmp_path / "out")
    lm = HFMultimodalLM(str(tmp_path / "out"), batch_size=4, device="cpu")
    found = lm_eval.simple_evaluate(
        lm,
        tasks=["looking"],
        task_manager=TaskManager(include_path=str(place), include_defaults=False),
        bootstrap_iters=10,
    )
    said = [sample["resps"][0][0] for sample in found["samples"]["looking"]]
    print(said, outcome.scores.samples)
    print(found["results"], outcome.scores.metrics)
    assert 0
