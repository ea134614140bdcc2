"""A few types of every sort; ``make architectures`` sweeps all of them."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from evomerge.models.architecture import Architecture
from evomerge.models.depth import movement_fault
from tests.sweep.configs import LEFT_OUT, TYPES, sweep_config
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
        ("deepseek_v3", MOVED, ALL_PARTS),
        ("longcat_flash", OF_CONFIG, ("routed_experts", "router")),
    ],
)
def test_a_type_merges_as_plain_arithmetic_does(
    model_type: str, path: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    assert verdict(model_type, tmp_path) == Verdict(model_type, path=path, parts=parts)


@pytest.mark.parametrize(
    ("model_type", "reason"),
    [
        ("zamba2", r"layer 1 looks up its position in .*layer_dic"),
        ("xlstm", "more than one place"),
        ("glm_moe_dsa", "no config says so"),
    ],
)
def test_layers_that_no_config_can_move_are_refused(model_type: str, reason: str) -> None:
    assert re.search(reason, movement_fault(sweep_config(model_type).to_dict()) or "")


@pytest.mark.parametrize(
    ("model_type", "mixer", "other"),
    [
        ("mamba", "backbone.layers.0.mixer.in_proj.weight", "backbone.layers.0.norm.weight"),
        ("lfm2", "model.layers.0.conv.in_proj.weight", "model.layers.0.feed_forward.w1.weight"),
        (
            "jamba",
            "model.layers.0.mamba.in_proj.weight",
            "model.layers.0.feed_forward.up_proj.weight",
        ),
        (
            "nemotron_h",
            "model.layers.0.mixer.in_proj.weight",
            "model.layers.3.mixer.up_proj.weight",
        ),
    ],
)
def test_what_mixes_tokens_counts_as_attention(model_type: str, mixer: str, other: str) -> None:
    roles = Architecture(sweep_config(model_type).to_dict(), [mixer, other]).roles
    assert roles[mixer].kind == "attention"
    assert roles[other].kind == ("norm" if model_type == "mamba" else "mlp")


def test_the_page_names_every_type_that_transformers_has() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = {*re.findall(r"^\| `([^`]+)` \|", text, flags=re.M)}
    if f"transformers {version('transformers')} " in text:
        assert named == {*TYPES, *LEFT_OUT}
    assert "wrong:" not in text
