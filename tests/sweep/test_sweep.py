"""A few types of every sort; ``make architectures`` sweeps all of them."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.sweep.configs import LEFT_OUT, TYPES
from tests.sweep.page import PAGE
from tests.sweep.verdict import Verdict, verdict

MOVED = (
    "layer 1 has mlp.class 'DeepseekV3MoE' at its own position and 'DeepseekV3MLP' at position 0"
)
OF_CONFIG = "its model has no list of as many layers as its config says"
ALL_PARTS = ("routed_experts", "router", "shared_experts")


@pytest.mark.parametrize(
    ("model_type", "path", "parts"),
    [
        ("mamba", "", ()),
        ("lfm2", "", ()),
        ("qwen3_next", "", ALL_PARTS),
        ("deepseek_v3", MOVED, ALL_PARTS),
        ("longcat_flash", OF_CONFIG, ("routed_experts", "router")),
    ],
)
def test_a_type_merges_as_plain_arithmetic_does(
    model_type: str, path: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    assert verdict(model_type, tmp_path) == Verdict(model_type, path=path, parts=parts)


def test_the_page_names_every_type_that_transformers_has() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = {*re.findall(r"^\| `([^`]+)` \|", text, flags=re.M)}
    if f"transformers {version('transformers')} " in text:
        assert named == {*TYPES, *LEFT_OUT}
    assert "wrong:" not in text
