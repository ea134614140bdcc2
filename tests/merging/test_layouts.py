"""One model in many files: whatever the layout, it is what transformers loads of it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.merging.candidate import LiveCandidate, output_dtype
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.recipe.recipe import Recipe, Rule
from tests.architectures import tiny_config, tiny_model

# By family: embedding, and prefix of the bare decoder.
FAMILIES = {
    "llama_tied": ("model.embed_tokens.weight", "model."),
    "gpt2": ("transformer.wte.weight", "transformer."),
    "gemma2": ("model.embed_tokens.weight", "model."),
    "mixtral": ("model.embed_tokens.weight", "model."),
}
HEAD = "lm_head.weight"
BASE = Rule("task_arithmetic", {"coefficient": 0.0})
EXPERT = Rule("linear", {"coefficient": 1.0})
BUFFERS = {  # no model of today loads them
    "llama_tied": "model.layers.0.self_attn.rotary_emb.inv_freq",
    "gpt2": "transformer.h.0.attn.masked_bias",
    "gemma2": "model.layers.1.self_attn.rotary_emb.inv_freq",
    "mixtral": "model.position_ids",
}


@dataclass(frozen=True)
class Layout:
    """How one model is written."""

    heads: str = "embedding"  # which is stored: head, or both, equal or different
    flag: bool = True  # tie_word_embeddings
    dtypes: str = "float32"  # or bfloat16, or a float32 head and embedding in a bfloat16 model
    named: bool = True  # the config says which dtype
    bare: bool = False
    buffer: bool = False


def layouts() -> st.SearchStrategy[Layout]:
    once = st.sampled_from([("embedding", True), ("head", True)])
    twice = st.tuples(st.sampled_from(["equal", "different"]), st.booleans())
    return st.tuples(
        once | twice,
        st.sampled_from(["float32", "bfloat16", "mixed"]),
        *(st.booleans() for _ in range(3)),
    ).map(lambda found: Layout(*found[0], *found[1:]))


@cache
def weights(family: str, seed: int) -> dict[str, torch.Tensor]:
    with tempfile.TemporaryDirectory() as folder:
        tiny_model(family, Path(folder), seed=seed, dtype=torch.float32)
        found = load_file(f"{folder}/model.safetensors")
        return {name: tensor.clone() for name, tensor in found.items() if name != HEAD}


def write(folder: Path, family: str, seed: int, layout: Layout) -> str:
    embedding, prefix = FAMILIES[family]
    tensors = dict(weights(family, seed))
    embedded = tensors.pop(embedding)
    ends = {
        "embedding": {embedding: embedded},
        "head": {HEAD: embedded},
        "equal": {embedding: embedded, HEAD: embedded.clone()},
        "different": {embedding: embedded, HEAD: embedded.flip(0).contiguous()},
    }[layout.heads]
    if layout.dtypes != "float32":
        tensors = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    if layout.dtypes == "bfloat16":
        ends = {name: tensor.bfloat16() for name, tensor in ends.items()}
    tensors |= ends | ({BUFFERS[family]: torch.arange(4.0)} if layout.buffer else {})
    if layout.bare:
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = tiny_config(family, tie_word_embeddings=layout.flag).to_dict()
    config["dtype"] = {"mixed": "bfloat16"}.get(layout.dtypes, layout.dtypes)
    if not layout.named:
        config.pop("dtype")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model.eval()(torch.arange(2, 26).reshape(2, 12)).logits.float()  # type: ignore[no-any-return]


def loaded(folder: str | Path, dtype: torch.dtype | str) -> torch.Tensor:
    return logits(AutoModelForCausalLM.from_pretrained(folder, dtype=dtype))


@given(st.sampled_from(sorted(FAMILIES)), layouts(), layouts())
@example("llama_tied", Layout("different"), Layout())
@example("llama_tied", Layout(), Layout("different"))
@example("llama_tied", Layout(), Layout("different", flag=False))
@example("gpt2", Layout(bare=True, buffer=True), Layout())
@example("gemma2", Layout("equal", flag=False), Layout("head"))
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_merge_of_nothing_or_of_all_is_what_transformers_loads(
    family: str, base: Layout, expert: Layout
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folders = [
            write(Path(root, name), family, seed, layout)
            for seed, (name, layout) in enumerate([("base", base), ("expert", expert)])
        ]
        sources = Sources(folders[0], {"expert": folders[1]})
        dtype = output_dtype(sources, None)
        assert dtype == (torch.float32 if base.dtypes == "float32" else torch.bfloat16)
        candidate = LiveCandidate(sources)
        for folder, rule in zip(folders, (BASE, EXPERT), strict=True):
            recipe = Recipe({"expert": folders[1]}, (rule,), base=folders[0])
            wanted = loaded(folder, dtype)
            candidate.materialise(recipe)
            assert torch.equal(logits(candidate.model), wanted)
            write_checkpoint(recipe, Path(root, "out"))
            assert torch.equal(loaded(Path(root, "out"), "auto"), wanted)
