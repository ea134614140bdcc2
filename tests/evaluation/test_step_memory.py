"""What is reckoned of scoring's memory, held against what models and draws really keep."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from evomerge.evaluation.choosing import Draws
from evomerge.evaluation.passes import Pass
from evomerge.evaluation.step_memory import cache_bytes, scoring_bytes

SIZES = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
LATENT = {
    "kv_lora_rank": 24,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 12,
    "v_head_dim": 10,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "moe_intermediate_size": 16,
    "topk_group": 1,
    "n_shared_experts": 1,
}
INDEXED = {**LATENT, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 4}


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("llama", {"num_key_value_heads": 2}),
        ("deepseek_v3", LATENT),
        ("deepseek_v32", INDEXED),
        ("minicpm3", LATENT),
    ],
)
def test_a_layer_keeps_what_its_cache_holds(kind: str, own: dict[str, int]) -> None:
    config = AutoConfig.for_model(kind, **{**SIZES, **own})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    with torch.no_grad():
        cache = model(torch.full((3, 5), 7), use_cache=True).past_key_values
    for layer in cache.layers:
        tensors = [held for held in vars(layer).values() if isinstance(held, torch.Tensor)]
        assert sum(tensor.nbytes for tensor in tensors) == cache_bytes(model, 3 * 5)


class Held(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self._add(one.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.now += size
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def test_drawing_tokens_takes_no_more_than_is_reckoned() -> None:
    config = AutoConfig.for_model("llama", **SIZES)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    n, vocabulary = 8, 4096
    config.vocab_size = vocabulary
    logits = torch.randn(n, vocabulary, dtype=torch.bfloat16)
    draws = Draws.of({"temperature": 0.7, "top_p": 0.9, "min_p": 0.01}, GenerationConfig())
    with Held() as held:
        draws.chooser(range(n))(logits, range(n))
    few = Pass(n, 1, n, n)
    drawn = scoring_bytes(model, Pass(n, 1, n, n, n_drawn=n), 2) - scoring_bytes(model, few, 2)
    reckoned = drawn + 2 * logits.nbytes  # of scoring, which takes turns with drawing
    assert 0.5 * reckoned < held.most <= reckoned
