"""Merges with data, from files to models, against plain loops over plain transformers models."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.api.merging import merge
from evomerge.errors import ConfigError, EvomergeError
from evomerge.merging import candidate
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.observed import peak_bytes, read_by_experts
from evomerge.merging.propagated import PROPAGATED
from evomerge.merging.sources import Sources
from evomerge.observation.examples import read_examples
from evomerge.recipe.files import dump_recipe, load_recipe
from evomerge.recipe.prompts import PromptFile
from evomerge.recipe.recipe import Recipe, Rule
from tests.architectures import tiny_model
from tests.benchmarks.memory import peak_of
from tests.tiny import WORDS, save_tiny_llama

LINES = [
    {"prompt": "w1 w2 w3", "answer": " w4 w5"},
    {"prompt": "w9 w2 w7 w6 w20", "answer": " w4"},
    {"prompt": "w11 w12 w13 w9 w10 w14 w3 w21 w22"},
    *({"prompt": f"w{i} w{i + 3} w{(7 * i) % 20}", "answer": f" w{i + 1}"} for i in range(12)),
]
TOKENS = {word: i for i, word in enumerate(WORDS)}
Models = dict[str, PreTrainedModel]


def prompts(folder: Path, lines: list[dict[str, str]] = LINES) -> PromptFile:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return PromptFile(str(file), labels="gold")


def recipe(root: Path, method: str, own: PromptFile, **parameters: float) -> Recipe:
    experts = {"one": str(root / "one"), "two": str(root / "two")}
    rules = (Rule(method, parameters),)
    return Recipe(experts, rules, base=str(root / "base"), dtype="float32", prompts=own)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("observed")
    base = save_tiny_llama(root / "base", seed=0, dtype=torch.float32, n_layers=2)
    for seed, name in enumerate(("one", "two"), 1):
        save_tiny_llama(root / name, seed=seed, near=base, dtype=torch.float32, n_layers=2)
    return root


def loaded(root: Path) -> Models:
    return {
        name: AutoModelForCausalLM.from_pretrained(root / name, dtype=torch.float32).double()
        for name in ("one", "two")
    }


def tokens(line: dict[str, str]) -> list[int]:
    text = line["prompt"] + line.get("answer", "")
    ids = [TOKENS[word] for word in text.split()]
    return ids if "answer" in line else [TOKENS["<eos>"], *ids]  # an empty context is a prefix


def read(model: PreTrainedModel, *, lines: list[dict[str, str]] = LINES) -> None:
    with torch.no_grad():
        for line in lines:
            model(torch.tensor([tokens(line)[:-1]]))


def inputs(model: PreTrainedModel, names: list[str]) -> dict[str, np.ndarray]:
    """Everything that goes into linear layers, by matrix."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    handles = []
    for name in names:
        layer = model.get_submodule(name.removesuffix(".weight"))
        handles.append(
            layer.register_forward_hook(lambda m, i, out, n=name: seen[n].append(i[0][0]))
        )
    read(model)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(several).numpy() for name, several in seen.items()}


def linear_names(model: PreTrainedModel) -> list[str]:
    return [name for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]


def regression(xs: list[np.ndarray], ws: list[torch.Tensor], off_diagonal: float) -> torch.Tensor:
    """Solve for a matrix by rows that have the softened second moments."""
    roots = []
    for x in xs:
        gram = x.T @ x / len(x)
        gram = off_diagonal * gram + (1 - off_diagonal) * np.diag(np.diag(gram))
        values, basis = np.linalg.eigh(gram)
        roots.append((basis * np.sqrt(values.clip(0))).T)
    right = np.vstack([root @ w.numpy().T for root, w in zip(roots, ws, strict=True)])
    return torch.from_numpy(np.linalg.lstsq(np.vstack(roots), right, rcond=None)[0].T)


def mean(models: Models, name: str) -> torch.Tensor:
    return torch.stack([m.state_dict()[name] for m in models.values()]).mean(0)


def compare(found: PreTrainedModel, wanted: Callable[[str], torch.Tensor]) -> None:
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor.double(), wanted(name), rtol=2e-3, atol=2e-5, msg=name)


def test_regmean_of_files_is_the_regression_over_what_layers_get(
    family: Path, tmp_path: Path
) -> None:
    found = merge(recipe(family, "regmean", prompts(tmp_path)))
    models = loaded(family)
    names = linear_names(models["one"])
    seen = [inputs(model, names) for model in models.values()]

    def wanted(name: str) -> torch.Tensor:
        if name not in names:
            return mean(models, name)
        ws = [model.state_dict()[name] for model in models.values()]
        return regression([x[name] for x in seen], ws, 0.9)

    compare(found, wanted)


def test_regmean_plus_plus_of_files_looks_at_merged_layers(family: Path, tmp_path: Path) -> None:
    found = merge(recipe(family, "regmean_plus_plus", prompts(tmp_path)))
    models = loaded(family)
    names = linear_names(models["one"])
    merged = copy.deepcopy(models["one"])
    state = merged.state_dict()
    with torch.no_grad():
        state["model.embed_tokens.weight"].copy_(mean(models, "model.embed_tokens.weight"))
        for stage in ("model.layers.0.", "model.layers.1.", ("model.norm", "lm_head")):
            own = [name for name in state if name.startswith(stage)]
            linear = [name for name in own if name in names]
            seen = []
            for model in models.values():
                for name in own:
                    state[name].copy_(model.state_dict()[name])
                seen.append(inputs(merged, linear))
            for name in own:
                ws = [model.state_dict()[name] for model in models.values()]
                solved = (
                    regression([x[name] for x in seen], ws, 0.1)
                    if name in linear
                    else mean(models, name)
                )
                state[name].copy_(solved)
    compare(found, lambda name: state[name])
    plain = merge(recipe(family, "regmean", prompts(tmp_path), off_diagonal=0.1))
    last = "model.layers.1.mlp.down_proj.weight"
    assert (plain.state_dict()[last] - found.state_dict()[last]).abs().max() > 1e-4


def test_fisher_of_files_is_the_average_by_squared_gradients(family: Path, tmp_path: Path) -> None:
    found = merge(recipe(family, "fisher", prompts(tmp_path), floor=1e-6))
    models = loaded(family)
    diagonals = {}
    for expert, model in models.items():
        total = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for line in LINES:
            ids = tokens(line)
            n = len(line["answer"].split()) if "answer" in line else len(ids) - 1
            logits = model(torch.tensor([ids[:-1]])).logits[0, -n:]
            log_p = logits.log_softmax(-1).gather(1, torch.tensor(ids[-n:])[:, None]).sum()
            gradients = torch.autograd.grad(log_p, list(model.parameters()))
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += gradient.square() / len(LINES)
        diagonals[expert] = total

    def wanted(name: str) -> torch.Tensor:
        own = [diagonals[expert][name] + 1e-6 for expert in models]
        upper = sum(f * m.state_dict()[name] for f, m in zip(own, models.values(), strict=True))
        return upper / sum(own)

    compare(found, wanted)


def test_prompts_for_one_expert_are_read_by_no_other(family: Path, tmp_path: Path) -> None:
    lines = [{**line, "expert": ("one", "two")[i % 2]} for i, line in enumerate(LINES)]
    found = merge(recipe(family, "regmean", prompts(tmp_path, lines)))
    assert not torch.equal(
        found.lm_head.weight, merge(recipe(family, "regmean", prompts(tmp_path))).lm_head.weight
    )
    for wrong in ([{**LINES[0], "expert": "one"}], [{**LINES[0], "expert": "three"}]):
        with pytest.raises(
            EvomergeError, match="three" if wrong[0]["expert"] == "three" else "two"
        ):
            merge(recipe(family, "regmean", prompts(tmp_path, wrong)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell")
def test_merging_layer_by_layer_takes_what_is_reckoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    sizes = {"hidden_size": 16, "intermediate_size": 2048, "num_hidden_layers": 1}
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model("llama", tmp_path / name, seed, torch.float32, **sizes)
    wanted = recipe(tmp_path, "regmean_plus_plus", prompts(tmp_path))
    sources = Sources.of(wanted)
    examples = read_examples(Path(wanted.prompts.file), 256)
    read_by = read_by_experts(examples, sources.experts, sources.anchor)
    kinds = [PROPAGATED]
    reckoned = peak_bytes(sources.anchor, sources.live_roles, kinds, read_by)
    assert reckoned > 2 * 2048**2 * (4 + 8)  # both experts' sums, then in float64
    peak = peak_of(lambda: LiveCandidate(sources, "float32").materialise(wanted))
    assert 0.4 * reckoned < peak < 1.1 * reckoned


@pytest.mark.parametrize("method", ["fisher", "regmean", "regmean_plus_plus", "mats", "cat"])
def test_one_expert_is_itself(method: str, family: Path, tmp_path: Path) -> None:
    own = replace(recipe(family, method, prompts(tmp_path)), experts={"one": str(family / "one")})
    models = loaded(family)
    compare(merge(own), lambda name: models["one"].state_dict()[name])


@pytest.mark.parametrize("kind", ["gpt2", "llama_tied", "mixtral"])
def test_what_is_no_linear_layer_of_its_own_is_averaged(kind: str, tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        tiny_model(kind, tmp_path / name, seed, dtype=torch.float32)
    found = merge(recipe(tmp_path, "regmean", prompts(tmp_path))).state_dict()
    one, two = (
        AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict()
        for name in ("one", "two")
    )
    averaged = {n for n in found if torch.allclose(found[n], (one[n] + two[n]) / 2, atol=1e-5)}
    solved = {n for n, tensor in found.items() if tensor.ndim == 2} - averaged
    assert all("attn" in name or "mlp" in name or "lm_head" in name for name in solved)
    assert bool(solved) == (kind != "gpt2")
    assert not any("experts" in name or "embed" in name or "gate." in name for name in solved)


def test_experts_are_run_once_on_a_machine(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    own = prompts(tmp_path)
    merge(recipe(family, "regmean", own))
    files = {
        f: f.stat().st_mtime_ns for f in (tmp_path / "cache").rglob("observed/*/*.safetensors")
    }
    assert len(files) == 2
    merge(recipe(family, "regmean", own), tmp_path / "out")
    assert (tmp_path / "out" / "recipe.yaml").is_file()
    made: list[str] = []
    load = candidate.load_model
    monkeypatch.setattr(candidate, "load_model", lambda *a: made.append(a[0]) or load(*a))
    again = merge(recipe(family, "regmean", own, off_diagonal=0.5))
    assert len(made) == 1  # the candidate itself
    assert all(file.stat().st_mtime_ns == time for file, time in files.items())
    merge(recipe(family, "regmean", replace(own, labels="sampled")))  # needs no labels
    assert len(made) == 2
    merge(recipe(family, "regmean", replace(own, limit=5)))
    assert len(made) == 4  # others are read
    monkeypatch.setenv("EVOMERGE_CACHE", "off")
    alike = merge(recipe(family, "regmean", own, off_diagonal=0.5))
    assert all(
        torch.equal(a, b) for a, b in zip(again.parameters(), alike.parameters(), strict=True)
    )


def test_a_recipe_file_is_complete_and_its_digest_true(family: Path, tmp_path: Path) -> None:
    own = prompts(tmp_path)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe(family, "fisher", own), beside=tmp_path))
    assert "file: prompts.jsonl" in file.read_text()
    first = load_recipe(file)
    assert first.prompts is not None
    assert first.prompts.file == own.file
    file.write_text(dump_recipe(first, beside=tmp_path))
    assert load_recipe(file).digest == first.digest
    prompts(tmp_path, LINES[:-1])
    with pytest.raises(EvomergeError, match="others"):
        load_recipe(file)
    file.write_text(file.read_text().replace(f"digest: {first.prompts.digest}, ", ""))
    assert load_recipe(file).digest != first.digest


def test_a_recipe_with_data_and_without_prompts_is_refused(family: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    plain = replace(recipe(family, "fisher", prompts(tmp_path)), prompts=None)
    file.write_text(dump_recipe(plain))
    with pytest.raises(ConfigError, match=r"prompts: \{file: FILE\}"):
        load_recipe(file)
    gone = replace(plain, prompts=PromptFile(str(tmp_path / "gone.jsonl")))
    file.write_text(dump_recipe(gone))
    with pytest.raises(EvomergeError, match=r"gone\.jsonl"):
        load_recipe(file)


def test_models_that_cannot_be_run_are_refused_before_any_is_loaded(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidate, "load_model", lambda *_: pytest.fail("a model was loaded"))
    own = replace(prompts(tmp_path), limit=3)
    (tmp_path / "prompts.jsonl").write_text("nonsense\n")
    sources = Sources(str(family / "base"), {"one": str(family / "one")}, prompts=own)
    with pytest.raises(ConfigError, match="line 1"):
        sources.observations.digest("fisher")
