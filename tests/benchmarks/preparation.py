"""What methods that prepare task vectors, or observe experts, cost: once, then per candidate.

Run on random models of 110M parameters, base and three experts, with
``python -m tests.benchmarks.preparation [METHOD ...]``: a quarter of an hour, 4 GB. One thread, one
process for each method, in a cache of its own; the rows are kept in
``runs/benchmarks/preparation.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.sources import Sources
from evomerge.methods.prepared import PreparedMethod
from evomerge.methods.registry import method, method_names
from evomerge.models.reference import AdapterRef, ModelRef, resolve_model
from evomerge.recipe.prompts import PromptFile
from evomerge.recipe.recipe import Recipe, Rule
from tests.benchmarks.memory import peak_of
from tests.benchmarks.replay import random_model
from tests.benchmarks.results import Row, keep, latest, markdown
from tests.benchmarks.shapes import EXPERTS, HIDDEN, LAYERS, MLP

__all__ = ["DOCS", "main", "methods", "table"]

DOCS = Path("docs/methods.md")
"""Where the table is."""

_PLAIN = "task_arithmetic"  # what the others are held against
_FOR_ADAPTERS = ("knots", "rmm", "lora_lego", "compeft")
_PROMPTS, _RANK = 64, 16
_NAMES = tuple(f"expert{i}" for i in range(EXPERTS))
_ADAPTED = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.v_proj": (HIDDEN, HIDDEN)} | {
    "mlp.down_proj": (HIDDEN, MLP)
}


def methods() -> tuple[str, ...]:
    """Name what is measured: task arithmetic, and all that prepare or observe."""
    own = (name for name in method_names() if issubclass(method(name), PreparedMethod))
    return (_PLAIN, *own)


def main(chosen: Sequence[str] = ()) -> None:
    """Measure methods, all by default, and show the table."""
    with tempfile.TemporaryDirectory() as folder:
        base, whole, adapters = _write_models(Path(folder))
        prompts = _write_prompts(Path(folder) / "prompts.jsonl")
        for name in chosen or methods():
            experts = adapters if name in _FOR_ADAPTERS else whole
            recipe = Recipe(experts, (Rule(name),), base=base, prompts=prompts)
            keep(
                "preparation", {"method": name, **_measured(recipe, Path(folder) / "cache" / name)}
            )
    print(table())


def table() -> str:
    """Lay out the latest rows."""
    rows = latest("preparation", methods())
    columns = ["method", "prepared once", "memory", "disk", "then a candidate"]
    return markdown(columns, map(_cells, rows), rows)


def _cells(row: Row) -> list[str]:
    return [
        f"`{row['method']}`",
        f"{row['once_s']:.1f} s",
        f"{float(row['peak_bytes']) / 1e9:.2f} GB",
        f"{float(row['disk_bytes']) / 1e9:.2f} GB",
        f"{row['candidate_s']:.2f} s",
    ]


def _measured(recipe: Recipe, cache: Path) -> Row:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (recipe, cache))


def _measure(recipe: Recipe, cache: Path) -> Row:
    """Merge, and once more with other coefficients of what is prepared; CPU seconds."""
    os.environ["EVOMERGE_CACHE"] = str(cache)
    torch.set_num_threads(1)
    candidate = LiveCandidate(Sources.of(recipe))
    candidate.materialise(Recipe(recipe.experts, (Rule(_PLAIN),), base=recipe.base))  # compiles
    (rule,) = recipe.rules
    other = replace(recipe, rules=(Rule(rule.method, {"coefficient": 0.9}),))
    seconds = []

    def merge(what: Recipe) -> None:
        start = time.process_time()
        candidate.materialise(what)
        seconds.append(time.process_time() - start)

    peak = peak_of(lambda: merge(recipe))
    merge(other)
    kept = (file.stat().st_size for file in cache.rglob("*.safetensors"))
    return {
        "once_s": max(0.0, seconds[0] - seconds[1]),
        "candidate_s": seconds[1],
        "peak_bytes": peak,
        "disk_bytes": sum(kept),
    }


def _write_models(folder: Path) -> tuple[str, dict[str, ModelRef], dict[str, ModelRef]]:
    base = random_model(folder / "base", 0)
    whole: dict[str, ModelRef] = {
        name: random_model(folder / name, seed) for seed, name in enumerate(_NAMES, 1)
    }
    adapters: dict[str, ModelRef] = {
        name: AdapterRef(_write_adapter(folder / f"{name}-lora", seed), on=base)
        for seed, name in enumerate(_NAMES, 1)
    }
    return base, whole, adapters


def _write_adapter(folder: Path, seed: int) -> str:
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for layer in range(LAYERS):
        for module, (rows, columns) in _ADAPTED.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            a, b = torch.Size((_RANK, columns)), torch.Size((rows, _RANK))
            factors[f"{name}.lora_A.weight"] = 0.02 * torch.randn(a, generator=generator)
            factors[f"{name}.lora_B.weight"] = 0.02 * torch.randn(b, generator=generator)
    folder.mkdir()
    save_file(factors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": _RANK}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder)


def _write_prompts(file: Path) -> PromptFile:
    """Write prompts of some 40 tokens: what they say does not matter to random models."""
    text = (resolve_model("zoo:base") / "tokenizer.json").read_text(encoding="utf-8")
    words = sorted(json.loads(text)["model"]["vocab"])
    lines = [" ".join(words[(7 * i + j) % len(words)] for j in range(40)) for i in range(_PROMPTS)]
    file.write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))
    return PromptFile(str(file))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD")
    main(parser.parse_args().methods)
