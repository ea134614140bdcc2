"""Models with different vocabularies merged by mergekit 0.1.5 and here, row for row.

Runs where ``mergekit`` can be imported. Where the two differ on purpose a test says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.merging.folder import write_checkpoint
from evomerge.recipe.mergekit import from_mergekit
from tests.vocabularies import EMBEDDING, HEAD, PLAIN, save_model

mergekit = pytest.importorskip("mergekit.merge")
configuration = pytest.importorskip("mergekit.config")

BASE = (*PLAIN, "<a>", "<b>")
MATH = (*PLAIN, "<b>", "<a>", "<m>")
CODE = (*PLAIN, "<c>", "<a>", "<m>", "<d>")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parity")
    base = save_model(root / "base", BASE, seed=0)
    save_model(root / "math", MATH, seed=1, n_rows=24, near=base)
    save_model(root / "code", CODE, seed=2, near=base)
    return root


def config(root: Path, **keys: Any) -> dict[str, Any]:
    weights = {"base": None, "math": 0.7, "code": -0.4}
    models = [
        {"model": str(root / name), **({"parameters": {"weight": w}} if w else {})}
        for name, w in weights.items()
    ]
    return {
        "merge_method": "task_arithmetic",
        "base_model": str(root / "base"),
        "models": models,
        "dtype": "float32",
        **keys,
    }


def by_mergekit(content: dict[str, Any], out: Path) -> None:
    options = mergekit.MergeOptions(quiet=True, write_model_card=False)
    read = configuration.MergeConfiguration.model_validate(content)
    mergekit.run_merge(read, str(out), options=options)


def tables(folder: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return AutoTokenizer.from_pretrained(folder).get_vocab(), model.state_dict()


@pytest.mark.parametrize(
    "keys",
    [
        {"tokenizer_source": "base"},
        {"tokenizer_source": "code"},
        {"tokenizer_source": "math"},
        {"tokenizer_source": "union"},
        {"tokenizer": {"source": "union", "pad_to_multiple_of": 16}},
        {
            "tokenizer": {
                "source": "union",
                "tokens": {
                    "<a>": {"source": "math", "force": True},
                    "<b>": {"source": {"kind": "zero"}, "force": True},
                    "<c>": {"source": {"kind": "model_token", "model": "code", "token": "<d>"}},
                },
            }
        },
    ],
)
def test_rows_are_mergekits(root: Path, tmp_path: Path, keys: dict[str, Any]) -> None:
    """Token by token: mergekit numbers those of a union in the order of a set of models."""
    content = config(root, **located(keys, root))
    by_mergekit(content, tmp_path / "theirs")
    write_checkpoint(from_mergekit(content, beside=root), tmp_path / "ours")
    (ids, ours), (their_ids, theirs) = tables(tmp_path / "ours"), tables(tmp_path / "theirs")
    assert ids.keys() == their_ids.keys()
    if content.get("tokenizer_source") != str(root / "math"):  # whose padding mergekit cuts
        assert len(ours[HEAD]) == len(theirs[HEAD])
    for name in (EMBEDDING, HEAD):
        mine = torch.cat([ours[name][[ids[token] for token in ids]], ours[name][len(ids) :]])
        other = torch.cat([theirs[name][[their_ids[t] for t in ids]], theirs[name][len(ids) :]])
        torch.testing.assert_close(mine[: len(other)], other, atol=1e-6, rtol=1e-6)


def located(value: Any, root: Path) -> Any:
    """Name models by their folders."""
    if isinstance(value, dict):
        return {key: located(inner, root) for key, inner in value.items()}
    return str(root / value) if value in ("math", "code") else value
