"""Every tensor of a model of vision and language is of one part, in every family."""

from __future__ import annotations

from collections import Counter

import pytest

from evomerge.models.parts import PartsChoice, parts_families, parts_of
from evomerge.models.structure import empty_model, text_only_fault


@pytest.mark.parametrize("family", parts_families())
def test_what_no_other_part_holds_is_the_language_tower(family: str) -> None:
    two = {"num_hidden_layers": 2}
    config = {"model_type": family, "text_config": two, "vision_config": two | {"depth": 2}}
    model, parts = empty_model(config), parts_of(config)
    assert model is not None
    assert parts is not None
    tower = model.get_submodule(f"model.{parts.language}")
    assert tower is model.get_decoder()
    head = {f"lm_head.{name}" for name, _ in model.get_output_embeddings().named_parameters()}
    inside = {f"model.{parts.language}.{name}" for name, _ in tower.named_parameters()}
    found = {name: parts.other_part(name) for name, _ in model.named_parameters()}
    assert {name for name, part in found.items() if part is None} == inside | (head & {*found})
    assert Counter(found.values()).keys() == {None, "vision", "projector"}
    assert text_only_fault(config) is not None


def test_a_text_models_names_are_those_of_the_tower() -> None:
    parts = parts_of({"model_type": "qwen2_5_vl"})
    assert parts is not None
    assert parts.in_tower("lm_head.weight") == "lm_head.weight"
    assert parts.in_tower("model.norm.weight") == "model.language_model.norm.weight"
    fused = parts.in_tower("model.layers.0.mlp.experts.up layers.0.mlp.experts.3.up.weight")
    assert fused == (
        "model.language_model.layers.0.mlp.experts.up "
        "language_model.layers.0.mlp.experts.3.up.weight"
    )


def test_a_choice_names_models() -> None:
    (fault,) = PartsChoice(vision="on", projector="base").faults(("base", "one"))
    assert fault.path == ("vision",)
    assert "expected one of base, one, got 'on'" in fault.text
    assert PartsChoice(vision="one").as_data() == {"vision": "one"}
