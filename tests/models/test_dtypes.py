from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.models.checkpoint import Checkpoint, model_dtype

TENSORS = {  # the first by name, and the one of most tensors, are not that of most elements
    "a": torch.zeros(3, dtype=torch.float32),
    "b": torch.zeros(2, dtype=torch.float32),
    "c": torch.zeros(4, 4, dtype=torch.bfloat16),
    "d": torch.zeros(9, dtype=torch.int64),
}


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({}, torch.bfloat16),
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": "float32"}, torch.float32),
        ({"dtype": None, "text_config": {"torch_dtype": "float32"}}, torch.float32),
        ({"dtype": "float16", "text_config": {"dtype": "float32"}}, torch.float16),
        ({"dtype": "float8_e4m3fn"}, torch.bfloat16),
        ({"dtype": "auto", "text_config": None}, torch.bfloat16),
    ],
)
def test_the_config_says_the_dtype_else_most_elements_do(
    config: dict[str, Any], wanted: torch.dtype, tmp_path: Path
) -> None:
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_dtype(Checkpoint(tmp_path), ["a", "b", "c"]) == wanted
