"""Twin-Merging: the published formula in float64, and answers of the model for each prompt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from evomerge.api.evaluating import ensemble_file, ensemble_scores, wanted_suites
from evomerge.api.masking import mask, merge_twins, restore
from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.errors import EvomergeError
from evomerge.evaluation.harness import Instance
from evomerge.merging.watched import N_PROMPTS
from evomerge.models.zoo import zoo_path
from evomerge.recipe.ensemble import OutputMix
from evomerge.recipe.recipe import Recipe
from evomerge.twins.file import Twins, load_twins
from evomerge.twins.routed import LiveTwins
from evomerge.twins.router import fit, router_prompts
from tests.tiny import save_tiny_llama

NAMES = ("one", "two", "three")
TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
ZOO = {"math": "zoo_math", "list": "zoo_list", "facts": "zoo_facts"}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and three experts in float32."""
    root = tmp_path_factory.mktemp("twins")
    base = save_tiny_llama(root / "base", seed=0, dtype=torch.float32, n_layers=1)
    for seed, name in enumerate(NAMES, 1):
        save_tiny_llama(root / name, seed=seed, near=base, dtype=torch.float32, n_layers=1)
    return root


def recipe(root: Path, **others: Any) -> dict[str, Any]:
    experts = {name: str(root / name) for name in NAMES}
    parameters = {"coefficient": 0.3}
    content = {"base": str(root / "base"), "experts": experts, "method": "task_arithmetic"}
    return {**content, "parameters": parameters, **others}


def tensors(folder: Path) -> Tensors:
    """All tensors in float64, as transformers loads them."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return {name: tensor.double() for name, tensor in model.state_dict().items()}


def truncated(difference: torch.Tensor, share: float) -> torch.Tensor:
    """The sum of the largest singular directions, as many as a share of the rank."""
    left, values, right = np.linalg.svd(difference.numpy(), full_matrices=False)
    rank = max(1, int(share * len(values)))
    return torch.from_numpy(left[:, :rank] * values[:rank] @ right[:rank])


def test_a_model_is_the_merge_and_weighed_truncated_differences(root: Path, tmp_path: Path) -> None:
    written = merge_twins(recipe(root), tmp_path / "kept", rank_share=0.25)
    base, experts = tensors(root / "base"), {name: tensors(root / name) for name in NAMES}
    weights = {"one": 0.7, "three": -0.2}
    restore(tmp_path / "kept", weights, tmp_path / "mixed")
    restore(tmp_path / "kept", "two", tmp_path / "two")
    mixed, two = tensors(tmp_path / "mixed"), tensors(tmp_path / "two")
    held = 0
    for name, own in base.items():
        merged = own + 0.3 * sum(experts[e][name] - own for e in NAMES)
        of = {e: experts[e][name] - merged for e in NAMES}
        if own.dim() == 2:
            rank = max(1, int(0.25 * min(own.shape)))
            of = {e: truncated(difference, 0.25) for e, difference in of.items()}
            assert rank * sum(own.shape) < own.numel()
            held += rank * sum(own.shape)
        else:
            held += own.numel()
        wanted = merged + sum(weight * of[e] for e, weight in weights.items())
        torch.testing.assert_close(mixed[name], wanted, rtol=0, atol=1e-6)
        torch.testing.assert_close(two[name], merged + of["two"], rtol=0, atol=1e-6)
    n = sum(tensor.numel() for tensor in base.values())
    assert (written.n_merge, written.n_difference, written.n_held) == (n, held, n + 3 * held)
    stored = load_file(tmp_path / "kept" / "twins" / "001.safetensors")
    assert sum(tensor.numel() for tensor in stored.values()) == held


def test_with_the_whole_rank_the_expert_comes_back(root: Path, tmp_path: Path) -> None:
    """Also of a merge without base, of one that is an expert, and of experts that are alike."""
    twins = {"one": str(root / "one"), "same": str(root / "one")}
    merge_twins(recipe(root, base=None, method="linear"), tmp_path / "linear", rank_share=1.0)
    merge_twins(recipe(root, experts=twins, parameters={"coefficient": 0.5}), tmp_path / "twins")
    for kept, name, own in (("linear", "three", "three"), ("twins", "same", "one")):
        restore(tmp_path / kept, name, tmp_path / "out")
        found, wanted = tensors(tmp_path / "out"), tensors(root / own)
        assert all(torch.allclose(found[n], wanted[n], atol=1e-6) for n in wanted)


def test_a_router_is_where_the_penalised_loss_is_least() -> None:
    generator = np.random.default_rng(0)
    states = generator.normal(size=(40, 6)) * [1, 5, 0.1, 1, 1, 0] + [0, 3, 0, 0, -2, 7]
    labels = generator.integers(0, 3, 40)
    states[:, 3] += labels
    router = fit(torch.from_numpy(states).float(), torch.from_numpy(labels), 3)
    spread = states.std(0)
    spread[spread < 1e-6] = 1
    features = (states - states.mean(0)) / spread
    rows = router.rows.double().numpy() * spread
    bias = router.bias.double().numpy() + router.rows.double().numpy() @ states.mean(0)
    scores = np.exp(features @ rows.T + bias)
    p = scores / scores.sum(1, keepdims=True)
    wrong = p - np.eye(3)[labels]
    assert np.abs(wrong.T @ features + rows).max() < 1e-3  # the slope, of 40 prompts together
    assert np.abs(wrong.sum(0)).max() < 1e-3
    found = router.weights(torch.from_numpy(states).float()).numpy()
    assert found == pytest.approx(p, abs=1e-5)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twins of the embedded experts, with a router fitted to search items."""
    root = tmp_path_factory.mktemp("zoo")
    lines = [
        {"prompt": doc["prompt"], "expert": expert}
        for expert, task in ZOO.items()
        for doc in docs(task, "search")[:12]
    ]
    (root / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    experts = {name: f"zoo:{name}" for name in ZOO}
    content = recipe(root, base="zoo:base", experts=experts, dtype="float32")
    merge_twins(content, root / "kept", prompts=root / "prompts.jsonl")
    return root


def test_a_router_reads_prompts_of_every_expert_in_any_order(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"w{i}", "expert": "one"}) for i in range(N_PROMPTS + 40)]
    lines += [json.dumps({"prompt": "w1", "expert": name}) for name in ("two", "three")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    found = Counter(one.expert for one in router_prompts(tmp_path / "prompts.jsonl"))
    assert found == {"one": N_PROMPTS, "two": 1, "three": 1}


def docs(task: str, split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TASKS / task / f"{split}.jsonl").open()]


def request(kind: str, text: str, other: Any, item: int) -> Instance:
    return Instance(
        request_type=kind, doc={}, arguments=(text, other), idx=0, metadata=("task", item, 1)
    )


def published_weights(zoo: Path, prompt: str) -> Mapping[str, float]:
    """Softmax of the router over the mean last hidden state of the prompt in the merge."""
    model = AutoModelForCausalLM.from_pretrained(zoo / "kept").eval()
    ids = AutoTokenizer.from_pretrained(zoo / "kept")(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        state = model(ids, output_hidden_states=True).hidden_states[-1][0].mean(0)
    router = load_file(zoo / "kept" / "twins" / "router.safetensors")
    found = torch.softmax(router["rows"] @ state + router["bias"], dim=0)
    return dict(zip(ZOO, found.tolist(), strict=True))


def test_each_prompt_is_answered_by_the_model_for_it(zoo: Path, tmp_path: Path) -> None:
    live = LiveTwins(load_twins(zoo / "kept"))
    engine = live.make_engine(live.model, live.tokenizer, "auto")
    facts, sums = docs("zoo_facts", "test")[0], docs("zoo_math", "test")[0]
    likelihoods = [
        request("loglikelihood", facts["prompt"], f" {choice}", 0) for choice in facts["choices"]
    ]
    text = request("generate_until", sums["prompt"], {"until": ["\n"], "max_gen_toks": 6}, 1)
    instances = [likelihoods[0], text, *likelihoods[1:]]
    first, generated, *rest = (found[0] for found in engine.prepare(instances).run())
    own = published_weights(zoo, facts["prompt"])
    assert own["facts"] > 0.5
    tokenizer = AutoTokenizer.from_pretrained(zoo / "kept")
    restore(zoo / "kept", own, tmp_path / "facts")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "facts").eval()
    for choice, answer in zip(facts["choices"], [first, *rest], strict=True):
        n = len(tokenizer(facts["prompt"]).input_ids)
        ids = tokenizer(f"{facts['prompt']} {choice}", return_tensors="pt").input_ids
        with torch.no_grad():
            log_p = model(ids).logits[0].log_softmax(-1)
        wanted = log_p[range(n - 1, ids.shape[1] - 1), ids[0, n:]].sum()
        assert answer.response[0] == pytest.approx(float(wanted), abs=1e-3)
    restore(zoo / "kept", published_weights(zoo, sums["prompt"]), tmp_path / "sums")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "sums").eval()
    ids = tokenizer(sums["prompt"], return_tensors="pt").input_ids
    said = model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    wanted_text = tokenizer.decode(said, skip_special_tokens=True).split("\n")[0]
    assert generated.response == wanted_text


def test_what_cannot_be_is_said_in_a_line(root: Path, tmp_path: Path) -> None:
    kept, prompts = tmp_path / "kept", tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "w1", "expert": "ones"}\n{"prompt": "w2", "expert": "two"}\n')
    with pytest.raises(EvomergeError) as error:
        merge_twins(recipe(root), kept, rank_share=0.0, prompts=prompts)
    assert "prompts for one, two, three, got some for 'ones'" in str(error.value)
    assert "got none for one, three" in str(error.value)
    assert "rank_share: expected a share above 0, up to 1, got 0.0" in str(error.value)
    prompts.write_text('{"prompt": "w1"}\n')
    with pytest.raises(EvomergeError, match="'expert' in every line, one of one, two, three"):
        merge_twins(recipe(root), kept, prompts=prompts)
    assert not kept.exists()
    merge_twins(recipe(root), kept)
    with pytest.raises(EvomergeError, match="expected a router beside"):
        LiveTwins(load_twins(kept))
    with pytest.raises(EvomergeError, match="one of one, two, three, got 'onee'; did you mean"):
        restore(kept, "onee", tmp_path / "out")
    with pytest.raises(EvomergeError, match="a finite weight for one, got nan"):
        restore(kept, {"one": float("nan")}, tmp_path / "out")
    mixed = Recipe(
        dict.fromkeys(NAMES, str(root / "one")), (), ensemble=OutputMix("logits", {"one": 1})
    )
    for keep in (merge_twins, mask):
        with pytest.raises(EvomergeError, match="expected a merge, got an ensemble"):
            keep(mixed, kept)
    assert (kept / "twins.yaml").exists()
    mask(recipe(root), tmp_path / "masks")
    mask(recipe(root), kept)
    assert not (kept / "twins.yaml").exists()
    merge_twins(recipe(root), kept)
    with pytest.raises(EvomergeError, match=r"the name of one expert, as .* has masks"):
        restore(tmp_path / "masks", {"one": 0.5}, tmp_path / "out")
    with pytest.raises(EvomergeError, match="a merge with differences, got"):
        load_twins(root / "base")
    changed = load_file(kept / "model.safetensors")
    changed["model.norm.weight"] += 1
    save_file(changed, kept / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EvomergeError, match="the merge that the differences are from, got another"):
        restore(kept, "one", tmp_path / "out")


def test_the_commands_keep_restore_and_score(zoo: Path, tmp_path: Path) -> None:
    file, kept, out = tmp_path / "recipe.yaml", tmp_path / "kept", tmp_path / "out"
    experts = {name: f"zoo:{name}" for name in ZOO}
    file.write_text(yaml.safe_dump(recipe(zoo, base="zoo:base", experts=experts)))
    prompts = ["--prompts", str(zoo / "prompts.jsonl"), "--rank-share", "0.05"]
    done = CliRunner().invoke(app, ["twins", str(file), "--out", str(kept), *prompts])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "with 3 differences of" in said
    assert "the router finds the expert of" in said
    done = CliRunner().invoke(app, ["restore", str(kept), "math=0.6,list=0.4", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert (out / "model.safetensors").is_file()
    done = CliRunner().invoke(app, ["restore", str(kept), "math=a", "--out", str(out)])
    assert "expected EXPERT, or EXPERT=0.6" in str(done.exception)
    done = CliRunner().invoke(app, ["restore", str(kept), "math=1,math=2", "--out", str(out)])
    assert "one weight for each expert, got 'math=1,math=2'" in str(done.exception)
    n = sum(t.numel() for t in load_file(zoo_path("base") / "model.safetensors").values())
    parts = [load_file(part) for part in (kept / "twins").iterdir()]
    held = n + sum(t.numel() for part in parts for t in part.values())
    twins = ensemble_file(kept / "twins.yaml")
    assert isinstance(twins, Twins)
    suites = wanted_suites(["zoo_facts"], [], TASKS, "test", limit=8)
    scores, costs = ensemble_scores(twins, suites, "test")
    assert asdict(costs) == {"parameters": held, "active_parameters": n, "forwards": 1}
    assert scores.metrics["zoo_facts"]["acc"].value > 0.4
