"""Model folders that are merged: config, index, headers, adapter, tokenizer, links."""

from __future__ import annotations

import atexit
import json
import os
import random
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp

import torch
from safetensors.torch import load_file, save_file

from evomerge.api.merging import write_merge
from evomerge.recipe.files import load_recipe
from evomerge.runs.loaded import _make_reader
from tests.fuzz.guard import Fuzzed
from tests.fuzz.mutations import damage_bytes, damage_data, damaged_json
from tests.tiny import save_tiny_llama

__all__ = ["MODEL_KINDS"]

_METHOD = "method: task_arithmetic\nparameters: {coefficient: 0.5}\n"
_OUTSIDE = ("../outside/{}", "{root}/outside/{}", "../../input/../outside/{}")
_Damage = Callable[[Path, random.Random], None]


@cache
def _family() -> Path:
    """A base, an expert in two files with an index, and an adapter of the base."""
    root = Path(mkdtemp(prefix="evomerge-fuzz-"))
    atexit.register(rmtree, root, ignore_errors=True)
    base = save_tiny_llama(root / "base", seed=0, n_layers=2)
    save_tiny_llama(root / "one", seed=1, near=base, n_layers=2)
    _cut_in_two(root / "one")
    _write_adapter(root / "adapter", base.config.hidden_size)
    return root


def _cut_in_two(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    held = {name: file for file, part in parts.items() for name in part}
    index = {"metadata": {"total_size": 1}, "weight_map": held}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def _write_adapter(folder: Path, width: int) -> None:
    folder.mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {
        f"{module}.lora_A.weight": torch.ones(2, width),
        f"{module}.lora_B.weight": torch.ones(width, 2),
    }
    save_file(factors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "alpha_pattern": {"q_proj": 2},
        "rank_pattern": {},
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "target_modules": ["q_proj"],
        "base_model_name_or_path": "base",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def _make(folder: Path) -> None:
    copytree(_family(), folder)
    expert = "{adapter: adapter, on: base}"
    for name, experts in (("full", "{one: one}"), ("adapted", f"{{two: {expert}}}")):
        (folder / f"{name}.yaml").write_text(f"base: base\nexperts: {experts}\n{_METHOD}")


def _merge(recipe: str) -> Callable[[Path], None]:
    def merge(folder: Path) -> None:
        write_merge(load_recipe(folder / f"{recipe}.yaml"), folder / "out" / recipe)

    return merge


def _merge_both(folder: Path) -> None:
    for recipe in ("full", "adapted"):
        _merge(recipe)(folder)


def _read_prompts(folder: Path) -> None:
    """Read the base as a search does, then merge, which copies its tokenizer."""
    _make_reader(str(folder / "base"), None, {})
    _merge("full")(folder)


def _json(*names: str) -> _Damage:
    return lambda folder, rng: damaged_json(folder / rng.choice(names), rng)


def _header(*names: str) -> _Damage:
    """Damage the header of a safetensors file: its JSON, its length, or any bytes of the file."""

    def damage(folder: Path, rng: random.Random) -> None:
        file = folder / rng.choice(names)
        content = file.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
        kind = rng.random()
        if kind < 0.6:
            changed = json.dumps(damage_data(header, rng)).encode()
            file.write_bytes(struct.pack("<Q", len(changed)) + changed + rest)
        elif kind < 0.75:
            lengths = (0, 1, length - 1, length + 1, len(content), 100_000_001, 2**63, 2**64 - 1)
            file.write_bytes(struct.pack("<Q", rng.choice(lengths)) + content[8:])
        else:
            file.write_bytes(damage_bytes(content, rng))

    return damage


def _layout(folder: Path, rng: random.Random) -> None:
    """Put a link, a folder, a pipe or nothing in place of a file; or name one that lies outside."""
    where = folder / rng.choice(("base", "one", "adapter"))
    file = rng.choice(sorted(where.iterdir()))
    path = rng.choice(_OUTSIDE).format("{}", root=folder.parent)
    target = path.format(rng.choice((file.name, "model.safetensors", "config.json")))
    kind = rng.randrange(6)
    if kind == 0:
        index = {"metadata": {}, "weight_map": {"model.norm.weight": target, "x": target}}
        (where / "model.safetensors.index.json").write_text(json.dumps(index))
        return
    if kind == 1:
        config = json.loads((folder / "base" / "config.json").read_text())
        key = rng.choice(("transformers_weights", "configuration_files", "auto_map"))
        value = {"AutoConfig": target} if key == "auto_map" else target
        config[key] = [value] if key == "configuration_files" else value
        (where / "config.json").write_text(json.dumps(config))
        return
    file.unlink()
    if kind == 2:
        os.symlink(target, file)
    elif kind == 3:
        file.mkdir()
    elif kind == 4:
        os.symlink(rng.choice((file.name, "/dev/zero", "..", ".")), file)


_TOKENIZER = ("base/tokenizer.json", "base/tokenizer_config.json", "one/tokenizer.json")
MODEL_KINDS = {
    "config.json": Fuzzed(_make, _json("one/config.json", "base/config.json"), _merge("full")),
    "index.json": Fuzzed(_make, _json("one/model.safetensors.index.json"), _merge("full")),
    "safetensors": Fuzzed(
        _make, _header("one/a.safetensors", "base/model.safetensors"), _merge("full")
    ),
    "adapter_config.json": Fuzzed(_make, _json("adapter/adapter_config.json"), _merge("adapted")),
    "adapter's tensors": Fuzzed(
        _make, _header("adapter/adapter_model.safetensors"), _merge("adapted")
    ),
    "tokenizer": Fuzzed(_make, _json(*_TOKENIZER, "one/tokenizer_config.json"), _read_prompts),
    "files and links": Fuzzed(_make, _layout, _merge_both),
}
