"""Units that change places: a permuted model answers the same, in every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.errors import CheckpointError
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.units import STREAM, units_of
from tests.alignment.permuted import FAMILIES, grouped_heads, save_permuted
from tests.architectures import tiny_model

TOKENS = torch.arange(3, 19).reshape(2, 8)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(TOKENS).logits
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_all_units_permuted_answers_the_same(family: str, tmp_path: Path) -> None:
    model = tiny_model(family, tmp_path / "a", 0, torch.float32, **grouped_heads(family))
    orders = save_permuted(tmp_path / "a", tmp_path / "b", seed=1)
    assert all((order != np.arange(len(order))).any() for order in orders.values())
    permuted = AutoModelForCausalLM.from_pretrained(tmp_path / "b").eval()
    moved = [
        not torch.equal(a, b)
        for a, b in zip(model.parameters(), permuted.parameters(), strict=True)
    ]
    assert sum(moved) > len(moved) * 0.8
    torch.testing.assert_close(logits(permuted), logits(model), rtol=1e-4, atol=1e-4)


def test_groups_are_those_of_the_architecture(tmp_path: Path) -> None:
    settings = grouped_heads("llama")
    tiny_model("llama", tmp_path, 0, torch.bfloat16, num_hidden_layers=1, **settings)
    found = [
        {a: m.shape for a, m in g.members.items()} for g in units_of(Checkpoint(tmp_path)).groups
    ]
    at = "model.layers.0."
    heads = {f"{at}self_attn.q": (2, 4), f"{at}self_attn.o": (2, 4)}
    values = {f"{at}self_attn.v": (4, 1), f"{at}self_attn.o": (4, 2)}
    shared = {
        f"{at}self_attn.{kind}": (2, size)
        for kind, size in (("q", 8), ("k", 4), ("v", 4), ("o", 8))
    }
    assert {f"{at}mlp.hidden": (40, 1)} in found
    assert shared in found
    assert found.count(heads) == found.count(values) == 2
    assert found[0] == {STREAM: (16, 1)}
    assert len(found) == 7


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    tiny_model("gpt_neox", tmp_path / "a", 0)
    with pytest.raises(CheckpointError, match=r"neurons and heads are known .*got gpt_neox in"):
        units_of(Checkpoint(tmp_path / "a"))
