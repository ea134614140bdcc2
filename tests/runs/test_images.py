"""Tasks with images, in searches over models of vision and language."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from shutil import copytree
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
from transformers import AutoModelForImageTextToText, AutoProcessor

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import ConfigError, StudyError
from evomerge.evaluation import images
from evomerge.evaluation.content import item_digests, task_digests
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.scores import Scores
from evomerge.evaluation.suite import Suite
from evomerge.execution.protocol import Job, Scored
from evomerge.execution.worker import Worker
from evomerge.export.rescore import score_folder
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.runs.cost import experiment_facts
from evomerge.runs.inputs import input_digests, require_same
from evomerge.runs.loaded import Loaded
from evomerge.runs.units import bytes_text
from tests.pages import DOCS, blocks
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
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_choice": ["w1", "w2 w3", "w4"],
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc"}],
    "generation_kwargs": None,
}
SPLITS = {"search": 6, "validation": 1, "test": 1}
QUESTIONS = ["w3 w4", "w3"]
OF_TEXT = {"objectives": [{"task": "reading", "metric": "exact_match"}]}


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


def by_transformers(folder: Path, data: Path, place: str = WORDS[IMAGE_TOKEN]) -> list[str]:
    """Answer the items of the search one by one, with nothing but transformers and datasets."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    found = []
    for row in Dataset.from_parquet(str(data / "search.parquet")):
        text = f"{row['question']} {place} w5"
        inputs = processor(images=[row["image"]], text=text, return_tensors="pt")
        tokens = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0]
        said = processor.decode(tokens[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        found.append(said.split("w10")[0])
    return found


def by_lm_eval(folder: Path, tasks: Path, name: str, **how: Any) -> dict[str, float]:
    chat = how.pop("apply_chat_template", False)
    model = HFMultimodalLM(str(folder), batch_size=4, device="cpu", **how)
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tasks)  # where it finds the data
        patch.setenv("DISABLE_MULTIPROC", "1")
        patch.setattr("gc.collect", lambda: 0)  # it does after every batch
        patch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
        found = lm_eval.simple_evaluate(
            model, tasks=[name], task_manager=manager, bootstrap_iters=0, apply_chat_template=chat
        )
    row = found["results"][name]
    return {metric: row[f"{metric},none"] for metric in ("exact_match", "chrf")}


def values(scores: Scores) -> dict[str, dict[str, float]]:
    return {
        task: {name: one.value for name, one in table.items()}
        for task, table in scores.metrics.items()
    }


def test_a_trial_scores_what_lm_eval_finds_in_its_export(place: Path, tmp_path: Path) -> None:
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
    evaluators = [chatting, evaluator(tasks, "looking", "reading")]
    parts = loaded(place, tmp_path / "e.yaml", evaluators=evaluators)
    outcome = Worker(parts.worker).run(Job(0, recipe))
    assert isinstance(outcome, Scored), outcome
    found = values(outcome.scores)
    assert len({*answers}) > 3
    assert found["looking"]["exact_match"] == 0.5
    assert found["looking"] == by_lm_eval(out, tasks, "looking")
    assert found["chatting"] == by_lm_eval(out, tasks, "chatting", apply_chat_template=True)
    assert found["chatting"] != found["looking"]
    assert values(score_folder(out, parts.suites, "search").scores) == found


@pytest.mark.parametrize(
    ("family", "told"), [("gemma3", {"image_string": WORDS[IMAGE_TOKEN - 1]}), ("qwen2_5_vl", {})]
)
def test_other_families_score_as_by_lm_eval(
    family: str, told: dict[str, str], tmp_path: Path
) -> None:
    """Whose prompts mark images otherwise, and whose images move the places of what follows."""
    if family == "qwen2_5_vl":
        pytest.importorskip("torchvision", reason="its processor needs that")
    model, tasks = tmp_path / "model", tmp_path / "tasks"
    vlm(model, family, 0)
    save_processor(model, family)
    tasks.mkdir()
    write_task(tasks)
    write_images(tasks)
    answers = by_transformers(model, tasks, told.get("image_string", WORDS[IMAGE_TOKEN]))
    write_images(tasks, {i: answers[i] for i in (0, 1, 4)})
    suite = Suite("suite", ("looking",), tasks, {split: split for split in SPLITS})
    engine = EngineChoice(name="transformers", **told)
    found = values(score_folder(model, [suite], "search", engine=engine).scores)["looking"]
    assert len({*answers}) > 3
    assert found["exact_match"] == 0.5
    assert found == by_lm_eval(model, tasks, "looking", **told)


def test_changed_pixels_and_processors_are_other_content(place: Path, tmp_path: Path) -> None:
    """The same images written again are the same; one pixel more is another task."""
    copytree(place, tmp_path / "new")
    new, file = tmp_path / "new", tmp_path / "e.yaml"
    kept = input_digests(before := loaded(place, file))
    assert {"processor of base", "items of looking (search)"} <= kept.keys()
    prompted = before.worker.prompted["search"]
    assert task_digests(pickle.loads(pickle.dumps(prompted))) == task_digests(prompted)
    write_images(new)
    require_same(kept, input_digests(loaded(new, file)), new)
    rows = Dataset.from_parquet(str(new / "search.parquet"))

    def touched(row: dict[str, Any], i: int) -> dict[str, Any]:
        image = row["image"].convert("RGB")
        if i == 3:
            image.putpixel((1, 1), (1, 2, 3))
        return row | {"image": image}

    rows.map(touched, with_indices=True).to_parquet(new / "search.parquet")
    changed = loaded(new, file)
    found = item_digests(changed.tasks, ["search", "validation"])
    assert found["looking (search)"] != kept["items of looking (search)"]
    assert found["looking (validation)"] == kept["items of looking (validation)"]
    processor = new / "base" / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace('_edge": 28', '_edge": 30'))
    with pytest.raises(StudyError, match=r"other items of looking \(search\), .*processor of base"):
        require_same(kept, input_digests(loaded(new, file)), new)


def test_check_says_what_images_come_to(place: Path, tmp_path: Path) -> None:
    """Of the task that the page on tasks shows."""
    (task,) = (b.text for b in blocks(DOCS / "tasks.md") if b.file == "tasks/charts.yaml")
    (tmp_path / "charts.yaml").write_text(task)
    write_images(tmp_path)
    suites = [evaluator(place, "reading"), evaluator(tmp_path, "charts")]
    parts = loaded(place, tmp_path / "e.yaml", evaluators=suites, **OF_TEXT)
    said = dict(experiment_facts(parts))["images"]
    n_bytes = 3 * 33 * (sum(20 + 9 * i for i in range(6)) + 2 * 20)
    assert said.startswith("8 in the prompts of charts, answered by lm-eval's hf-multimodal")
    assert f"each worker holds {bytes_text(n_bytes)} of them" in said


def faults(place: Path, file: Path, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(place, file, **changes)
    return [str(fault) for fault in caught.value.faults]


def test_what_images_a_task_cannot_have_is_said_before_a_model_is_loaded(
    place: Path, tmp_path: Path
) -> None:
    write_images(tmp_path)
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "choosing": (CHOICES, r"multiple_choice\), which lm-eval's hf-multimodal does not"),
        "hearing": ({"doc_to_image": None, "doc_to_audio": "image"}, "needs sound"),
        "single": (
            {"doc_to_image": "image"},
            r"got PngImageFile; .*\[image\]",
        ),
        "words": ({"doc_to_image": ["question"]}, "got a list with str"),
        "nowhere": ({"doc_to_text": "w3"}, "each image in a prompt, got 0 for 1"),
        "shown": ({"num_fewshot": 1, "fewshot_split": "validation"}, "got 2 for 1; .*num_fewshot"),
        # 2 words, 4 tokens of the image, 54 words, 5 of the answer; the context has 64
        "long": ({"doc_to_text": "{{question}} <image>" + 54 * " w5"}, "up to 65 tokens with"),
    }
    for name, (changes, _) in wrong.items():
        write_task(tmp_path, name, **changes)
    suites = [evaluator(place, "looking", "reading"), evaluator(tmp_path, *wrong)]
    found = faults(place, tmp_path / "e.yaml", evaluators=suites)
    assert all(fault.startswith("evaluators[1].tasks[") for fault in found)
    for name, (_, text) in wrong.items():
        own = [fault for fault in found if f"task '{name}'" in fault]
        assert own, name
        assert all(re.search(text, fault) for fault in own), own


@pytest.mark.parametrize(
    ("objective", "changes", "expected"),
    [
        ({"metric": "exact_match"}, {}, "gates: expected a task without images"),
        ({"metric": "exact_match"}, {"sampler": "slopes"}, "looking: its prompts have images"),
        ({"metric": "gold_bpb"}, {}, "expected a metric out of exact_match, chrf, got 'gold_bpb'"),
        ({"cost": "kl"}, {}, "objectives[1].cost: expected a task without images"),
    ],
)
def test_what_reads_text_alone_is_refused(
    objective: dict[str, str], changes: dict[str, Any], expected: str, place: Path, tmp_path: Path
) -> None:
    task = {} if "cost" in objective else {"task": "looking"}
    others = [] if task else [{"task": "looking", "metric": "exact_match"}]
    wanted = {"objectives": [*others, task | objective]}
    if "gates" not in expected:
        wanted["gates"] = "off"
    evaluators = [evaluator(place, "looking")]
    found = faults(place, tmp_path / "e.yaml", evaluators=evaluators, **wanted, **changes)
    assert len(found) == 1
    assert expected in found[0]


def test_models_that_see_no_images_are_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "e.yaml"
    text_model(tmp_path / "text", "llava", 1)
    alone = str(tmp_path / "text")
    found = faults(place, file, models={"base": alone, "experts": {"one": alone}})
    assert found == [
        "evaluators[0].tasks[0]: task 'looking' has images, but the base reads text alone; take a "
        "base of vision and language"
    ]
    models = {"base": str(place / "one"), "experts": {"one": str(place / "base")}}
    (found,) = faults(place, file, models=models)
    assert "to have a processor for images" in found
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    assert "pip install 'evomerge[images]'" in faults(place, file)[0]


def test_what_is_said_of_images_needs_images(place: Path, tmp_path: Path) -> None:
    engine = {"name": "transformers", "image_max_side": 20}
    evaluators = [evaluator(place, "reading")]
    (found,) = faults(place, tmp_path / "e.yaml", engine=engine, evaluators=evaluators, **OF_TEXT)
    assert found.startswith("engine.image_max_side: expected a task with images")
