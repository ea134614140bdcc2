"""Models on the Hub that are looked at and not downloaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import SafetensorsFileMetadata, SafetensorsRepoMetadata, TensorInfo

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import CheckpointError
from evomerge.merging.sources import Sources
from evomerge.models import opening
from evomerge.models.checkpoint import Checkpoint
from evomerge.models.opening import peek_model
from evomerge.models.reference import DeltaRef
from evomerge.models.tokenizer_choice import TokenizerChoice
from evomerge.runs.cost import experiment_facts
from evomerge.runs.loaded import Loaded

Family = dict[str, Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def header(file: Path) -> SafetensorsFileMetadata:
    """Read what a request for the first bytes of a file answers."""
    with file.open("rb") as stream:
        content = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    metadata = content.pop("__metadata__", {})
    tensors = {n: TensorInfo(t["dtype"], t["shape"], t["data_offsets"]) for n, t in content.items()}
    return SafetensorsFileMetadata(metadata, tensors)


@pytest.fixture
def hub(
    tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """Serve the tiny models as owner/NAME: configs and headers, no tensors. Notes the requests."""
    asked: list[str] = []
    snapshots = {
        name: tmp_path / f"models--owner--{name}" / "snapshots" / COMMIT for name in tiny_family
    }

    def config(repository: str, filename: str, revision: str | None = None) -> str:
        asked.append(f"{repository} {filename}")
        name = repository.removeprefix("owner/")
        target = snapshots[name] / filename
        target.parent.mkdir(parents=True, exist_ok=True)
        refs = target.parents[2] / "refs"
        refs.mkdir(exist_ok=True)
        (refs / "main").write_text(COMMIT)
        target.write_bytes((tiny_family[name] / filename).read_bytes())
        for file in tiny_family[name].glob("tokenizer*"):  # transformers fetches these by itself
            (target.parent / file.name).write_bytes(file.read_bytes())
        return str(target)

    def headers(repository: str, revision: str | None = None) -> SafetensorsRepoMetadata:
        asked.append(f"{repository} headers")
        file = tiny_family[repository.removeprefix("owner/")] / "model.safetensors"
        files = {file.name: header(file)}
        return SafetensorsRepoMetadata(None, False, {}, files)

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", config)
    monkeypatch.setattr(huggingface_hub, "get_safetensors_metadata", headers)
    for known in (opening._headers, opening._companions):
        known.cache_clear()
    yield asked
    for known in (opening._headers, opening._companions):
        known.cache_clear()


def test_names_shapes_and_dtypes_are_those_of_the_model(
    hub: list[str], tiny_family: Family
) -> None:
    seen, real = peek_model("owner/one"), Checkpoint(tiny_family["one"])
    assert seen.config == real.config
    assert seen.shapes() == real.shapes()
    assert {seen.dtype(name) for name in seen.names} == {torch.bfloat16}
    with pytest.raises(CheckpointError, match=r"owner/one/model\.safetensors is on the Hub"):
        seen.tensor("lm_head.weight")


def test_the_hub_is_asked_once_for_each_model(hub: list[str]) -> None:
    for _ in range(3):
        peek_model("owner/one")
    assert hub == ["owner/one config.json", "owner/one headers"]


def test_experts_of_every_kind_are_checked_and_counted(hub: list[str], tiny_family: Family) -> None:
    experts = {"one": "owner/one", "chat": DeltaRef("owner/two", minus="owner/three")}
    seen = Sources("owner/base", experts, open_full=peek_model)
    here = {"one": str(tiny_family["one"])}
    chat = DeltaRef(str(tiny_family["two"]), minus=str(tiny_family["three"]))
    real = Sources(str(tiny_family["base"]), {**here, "chat": chat})
    assert seen.architecture.n_layers == 4
    for name in real.names:
        assert seen.tensor_bytes(name) == real.tensor_bytes(name)
        assert seen.computed_bytes(name) == real.computed_bytes(name)


def test_a_model_that_is_here_is_read_from_here(hub: list[str], tiny_family: Family) -> None:
    peek_model("owner/one")
    (snapshot,) = Path(constants.HF_HUB_CACHE).glob("*one/snapshots/*")
    (snapshot / "model.safetensors").write_bytes(
        (tiny_family["one"] / "model.safetensors").read_bytes()
    )
    hub.clear()
    assert torch.equal(
        peek_model("owner/one").tensor("lm_head.weight"),
        Checkpoint(tiny_family["one"]).tensor("lm_head.weight"),
    )
    assert hub == []


def test_without_a_network_a_missing_model_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="the Hub gave no such model") as error:
        peek_model("owner/nowhere")
    assert len(str(error.value).splitlines()) == 1


def test_check_downloads_no_model(hub: list[str], tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text(
        "models: {base: owner/base, experts: {one: owner/one, two: owner/two}}\n"
        "search_space: global_linear\nevaluators: [zoo]\n"
        "objectives: [{task: zoo_math, metric: exact_match}]\n"
    )
    experiment = load_experiment(tmp_path / "e.yaml", Presets(None))
    facts = dict(experiment_facts(Loaded.of(experiment)))
    assert "4 layers" in facts["models"]
    assert facts["experts"].startswith("mapped: ")
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.safetensors"))


def test_the_tokenizer_is_fetched_where_vocabularies_are_compared(
    hub: list[str], tiny_family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = tmp_path / "with one more token"
    shutil.copytree(tiny_family["one"], added)
    content = json.loads((added / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "content": "<new>", "id": 31})
    content["model"]["vocab"].pop(next(w for w, i in content["model"]["vocab"].items() if i == 31))
    (added / "tokenizer.json").write_text(json.dumps(content))
    monkeypatch.setattr(opening, "companion_snapshot", lambda *_: added)
    choice = TokenizerChoice("union")
    sources = Sources(
        str(tiny_family["base"]), {"one": "owner/one"}, open_full=peek_model, tokenizer=choice
    )
    assert sources.vocabulary is not None
    assert "union of all tokens, 33 in 33 rows" in sources.vocabulary.notes[0]
