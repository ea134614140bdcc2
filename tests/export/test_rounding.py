"""What folded scales do to logits, where the stream is so small that the norms' epsilon counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.export.rounding import FoldError, fold_error
from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.path import Hop
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tiny_llama


def folded(folder: Path, epsilon: float) -> FoldError:
    """Fold a scale of 3 into a float32 model whose embeddings are about 0.02."""
    model = save_tiny_llama(folder / "model", seed=0, dtype=torch.float32)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(0.02, rel=0.1)
    config = json.loads((folder / "model" / "config.json").read_text())
    text = json.dumps({**config, "rms_norm_eps": epsilon})
    (folder / "model" / "config.json").write_text(text)
    path = tuple(Hop("a", n, 3.0 if n == 0 else 1.0) for n in range(4))
    recipe = Recipe({"a": str(folder / "model")}, (Rule("linear"),), path=path)
    write_checkpoint(recipe, folder / "out")
    return fold_error(recipe, folder / "out")


def test_the_epsilon_of_norms_is_measured_apart_from_rounding(tmp_path: Path) -> None:
    none, usual, large = (folded(tmp_path / f"{e}", e) for e in (1e-30, 1e-6, 1e-5))
    assert max(none.largest, usual.largest, large.largest) < 1e-5  # float32
    assert none.epsilon < 1e-6
    assert 1e-4 < usual.epsilon < 2e-2
    assert large.epsilon > 2 * usual.epsilon


def test_what_is_measured_is_the_distance_from_a_stream_that_is_really_scaled(
    tmp_path: Path,
) -> None:
    found = folded(tmp_path, 1e-4).epsilon
    written = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    literal = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    literal.model.layers[0].register_forward_pre_hook(lambda _, args: (3 * args[0], *args[1:]))
    tokens = torch.randint(0, 32, (8, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = written(tokens).logits, literal(tokens).logits
    assert found == pytest.approx(((one - other).abs().mean() / other.abs().mean()).item(), rel=0.1)
