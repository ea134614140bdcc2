"""Random models of a size, with the embedded models' tokenizer: a base and two experts near it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from evomerge.merging.sources import Sources
from evomerge.models.zoo import zoo_path
from evomerge.recipe.recipe import Recipe, Rule
from tests.benchmarks.gpu.bench import Bench
from tests.benchmarks.gpu.shapes import MIDDLE

__all__ = ["Family", "saved_family"]

_CONTEXT = 4096
_STEP = 0.002  # of an expert from the base, beside parameters of 0.02


@dataclass(frozen=True)
class Family:
    """Models on disk.

    Attributes:
        base: Folder.
        experts: Folders by name.
    """

    base: str
    experts: dict[str, str]

    def sources(self) -> Sources:
        """Open them."""
        return Sources(self.base, self.experts)

    def recipe(self, coefficient: float, method: str = "task_arithmetic") -> Recipe:
        """Write a recipe of one rule."""
        return Recipe(self.experts, (Rule(method, {"coefficient": coefficient}),), self.base)


@contextmanager
def saved_family(bench: Bench, experts: Sequence[str] = ("one", "two")) -> Iterator[Family]:
    """Write models, made on the device, to a folder that is removed in the end.

    Args:
        bench: Its device and size of models.
        experts: Their names; the base alone takes less time.
    """
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        torch.manual_seed(0)
        model = _random_model(bench)
        paths = {name: Path(folder) / name for name in ("base", *experts)}
        for name, path in paths.items():
            if name != "base":
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=_STEP)
            model.save_pretrained(path)
            for file in zoo_path("base").glob("*token*"):
                shutil.copy(file, path)
        del model
        if not bench.is_dry:
            torch.cuda.empty_cache()
        yield Family(str(paths["base"]), {name: str(paths[name]) for name in experts})


def _random_model(bench: Bench) -> PreTrainedModel:
    shape = MIDDLE[bench.is_dry]
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    with bench.device:
        return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
