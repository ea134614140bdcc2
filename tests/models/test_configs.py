"""Configs as transformers reads them, and written so that it reads them again."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    FalconH1Config,
    FalconH1ForCausalLM,
    PretrainedConfig,
)

from evomerge.errors import CheckpointError
from evomerge.merging.folder import write_checkpoint
from evomerge.models.configs import config_text, read_config
from evomerge.recipe.recipe import Recipe, Rule
from tests.tiny import save_tokenizer

Family = dict[str, Path]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(content=st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=4))
def test_transformers_reads_back_what_was_written(
    content: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("c")
    text = config_text({"model_type": "llama", "x": content})
    json.loads(text, parse_constant=pytest.fail)  # strict JSON, which has no Infinity
    (folder / "config.json").write_text(text)
    theirs, _ = PretrainedConfig.get_config_dict(folder)
    assert repr(theirs["x"]) == repr(content)  # NaN equals nothing, not even itself
    assert repr(read_config(folder)["x"]) == repr(content)


@pytest.mark.parametrize(
    ("written", "meant"), [("Infinity", math.inf), ("-Infinity", -math.inf), ("NaN", math.nan)]
)
def test_both_spellings_of_infinity_are_read(tmp_path: Path, written: str, meant: float) -> None:
    text = f'{{"tagged": {{"__float__": "{written}"}}, "bare": {written}}}'
    (tmp_path / "config.json").write_text(text)
    config = read_config(tmp_path)
    assert repr(config["tagged"]) == repr(config["bare"]) == repr(meant)


def test_a_hybrid_with_infinity_in_its_config_is_merged(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "expert")):
        torch.manual_seed(seed)
        config = FalconH1Config(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            mamba_d_ssm=32,
            mamba_n_heads=4,
            mamba_d_head=8,
            mamba_n_groups=1,
            mamba_d_state=8,
        )
        FalconH1ForCausalLM(config).save_pretrained(tmp_path / name)
        save_tokenizer(tmp_path / name)
    assert '"__float__": "Infinity"' in (tmp_path / "base" / "config.json").read_text()
    rule = Rule("task_arithmetic", {"coefficient": 0.5})
    recipe = Recipe({"e": str(tmp_path / "expert")}, (rule,), base=str(tmp_path / "base"))
    write_checkpoint(recipe, tmp_path / "out")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.config.time_step_limit == (0.0, math.inf)
    models = (AutoModelForCausalLM.from_pretrained(tmp_path / n) for n in ("base", "expert"))
    base, expert = (model.state_dict() for model in models)
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, base[name] + 0.5 * (expert[name] - base[name]))


def test_code_and_files_that_a_merge_has_not_are_not_spoken_of(
    tiny_family: Family, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny_family["base"], tmp_path / "base"))
    remote = {"auto_map": {"AutoModelForCausalLM": "owner/code--modeling.Model"}}
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        content = json.loads((base / name).read_text())
        (base / name).write_text(json.dumps({**content, **remote, "kept": "é"}))
    config = json.loads((base / "config.json").read_text())
    files = {"transformers_weights": "w.safetensors", "configuration_files": ["config.4.0.0.json"]}
    (base / "config.json").write_text(json.dumps({**config, **files, "kept": "not read"}))
    (base / "config.4.0.0.json").write_text(json.dumps({**config, **files, "sub": remote}))
    (base / "model.safetensors").rename(base / "w.safetensors")
    vocabulary = json.dumps({"auto_map": 1})
    (base / "vocab.json").write_text(vocabulary)
    rule = Rule("task_arithmetic", {"coefficient": 0.5})
    write_checkpoint(
        Recipe({"one": str(tiny_family["one"])}, (rule,), base=str(base)), tmp_path / "out"
    )
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        written = json.loads((tmp_path / "out" / name).read_text())
        assert written["kept"] == "é"
        assert not {"auto_map", *files} & {*written, *written.get("sub", {})}, name
    assert (tmp_path / "out" / "vocab.json").read_text() == vocabulary  # tokens of any name
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    AutoTokenizer.from_pretrained(tmp_path / "out")


@pytest.mark.parametrize(
    "content", ["[]", "{", "[" * 10**5, "\xff", '{"configuration_files": [1]}']
)
def test_a_config_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError) as error:
        read_config(tmp_path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "n_routed_experts", "depth"])
@pytest.mark.parametrize("inside", [False, True], ids=["own", "inside"])
def test_no_model_without_end_is_begun(tmp_path: Path, key: str, inside: bool) -> None:
    content = {"hidden_size": 10**18, key: 10**18}
    (tmp_path / "config.json").write_text(json.dumps({"text": content} if inside else content))
    with pytest.raises(CheckpointError, match=f"expected {key} of 10,000 at most .*got 1000"):
        read_config(tmp_path)
