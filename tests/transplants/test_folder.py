"""A model with another vocabulary: shared rows stay, missing ones are made of them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from typer.testing import CliRunner

from evomerge.api.transplanting import transplant
from evomerge.cli.main import app
from evomerge.errors import EvomergeError, NonFiniteError
from evomerge.merging.sources import Sources
from evomerge.models.companions import Companions
from evomerge.models.zoo import zoo_path
from evomerge.transplants.folder import Transplant, write_transplant
from tests import vocabularies
from tests.transplants.formulas import nearest, orthogonal_pursuit
from tests.vocabularies import EMBEDDING, HEAD, PLAIN, save_model

FORMULAS = {"omp": orthogonal_pursuit, "common_interpolation": nearest}
OWN = (*PLAIN, "<a>", "<b>")
NEW = (
    "w9",
    "w3",
    "<stop>",
    *(f"v{i}" for i in range(9)),
    "w5",
    "<unk>",
    "<pad>",
    "w0",
    "<b>",
    "w1",
)
"""Of the donor; w0, w1, w3, w5, w9, <b>, <pad> and <unk> are shared, <stop> ends a text there."""


def save_donor(folder: Path, *, tied: bool = False, n_rows: int | None = None) -> Path:
    """A wider model with other tokens."""
    settings: dict[str, Any] = {"eos": "<stop>", "tied": tied, "hidden_size": 24, "n_rows": n_rows}
    save_model(folder, NEW, seed=1, template="{{ donor }}", **settings)
    return folder


def loaded(folder: Path) -> PreTrainedModel:
    both: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    assert not any(both[1].values()), both[1]
    model: PreTrainedModel = both[0].eval()
    return model


def table(folder: Path, name: str) -> torch.Tensor:
    found: torch.Tensor = loaded(folder).state_dict()[name].double()
    return found


@pytest.mark.parametrize("method", FORMULAS)
@pytest.mark.parametrize(("tied", "donor_tied"), [(False, False), (True, False), (False, True)])
def test_rows_are_shared_or_made_of_shared_ones(
    method: Any, tied: bool, donor_tied: bool, tmp_path: Path
) -> None:
    save_model(tmp_path / "model", OWN, seed=0, tied=tied, n_rows=20)
    save_donor(tmp_path / "donor", tied=donor_tied, n_rows=24)
    written = transplant(
        str(tmp_path / "donor"),
        str(tmp_path / "model"),
        tmp_path / "out",
        approximation_method=method,
        k=3,
    )
    shared = [token for token in NEW if token in OWN]
    for name in (EMBEDDING, HEAD):
        own, donor, out = (table(tmp_path / part, name) for part in ("model", "donor", "out"))
        if tied:  # one table, as the embedding of the donor says
            donor = table(tmp_path / "donor", EMBEDDING)
        of = {"own": own[[OWN.index(t) for t in shared]], "donor": donor[[*map(NEW.index, shared)]]}
        assert torch.equal(out[[*map(NEW.index, shared)]], of["own"])
        assert torch.equal(out[NEW.index("<stop>")], own[OWN.index("<eos>")])
        for token in (t for t in NEW if t.startswith("v")):
            target = donor[NEW.index(token)].numpy()
            made = FORMULAS[method](target, of["donor"].numpy(), 3) @ of["own"].numpy()
            np.testing.assert_allclose(out[NEW.index(token)], made, atol=1e-5)
        mean = out[: len(NEW)].mean(dim=0)
        assert torch.equal(out[18:20], own[18:20])  # padding in both
        assert torch.allclose(out[20:24], mean.expand(4, -1), atol=1e-6)
    assert len(table(tmp_path / "out", EMBEDDING)) == loaded(tmp_path / "out").config.vocab_size
    assert written.match.roles == {"<stop>": "<eos>"}
    assert len(written.errors) == (1 if tied or donor_tied else 2)


def test_the_rest_of_the_model_and_the_tokenizer_of_the_donor_are_kept(tmp_path: Path) -> None:
    save_model(tmp_path / "model", OWN, seed=0, template="{{ model }}")
    save_donor(tmp_path / "donor")
    out, (donor, model) = tmp_path / "out", (tmp_path / name for name in ("donor", "model"))
    transplant(str(donor), str(model), out)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[n], after[n]) for n in before.keys() - {EMBEDDING, HEAD})
    tokenizer, stop = AutoTokenizer.from_pretrained(out), NEW.index("<stop>")
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(donor).get_vocab()
    assert (tokenizer.chat_template, tokenizer.eos_token) == ("{{ donor }}", "<stop>")
    assert loaded(out).config.eos_token_id == stop
    assert GenerationConfig.from_pretrained(out).eos_token_id == stop
    assert sorted(file.name for file in out.iterdir() if "merge" in file.name) == []


def test_the_models_own_template_needs_its_special_tokens(tmp_path: Path) -> None:
    save_model(tmp_path / "model", OWN, seed=0, template="{{ model }}", eos="<b>")
    save_donor(tmp_path / "donor")
    out, (donor, model) = tmp_path / "out", (str(tmp_path / name) for name in ("donor", "model"))
    transplant(donor, model, out, chat_template="model")
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert (tokenizer.chat_template, tokenizer.eos_token) == ("{{ model }}", "<b>")
    assert loaded(out).config.eos_token_id == NEW.index("<b>")
    save_model(tmp_path / "model", OWN, seed=0)  # ends with <eos>, which the donor lacks
    with pytest.raises(EvomergeError, match=r"special tokens of .* no '<eos>'.*of the donor"):
        transplant(donor, model, out, chat_template="model")


def test_tokens_that_stand_for_images_keep_their_meaning(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("model", "donor")]
    save_model(folders[0], OWN, seed=0)
    save_donor(folders[1])
    companions = Companions(folders[0], folders[1], (), folders[1])
    rows = {token: row for row, token in enumerate(NEW)}
    own = {"image_token_id": OWN.index("<b>"), "eos_token_id": 1, "bos_token_id": None}
    found = companions.config(own, rows, 18)
    stop = NEW.index("<stop>")
    assert (found["image_token_id"], found["eos_token_id"]) == (NEW.index("<b>"), stop)
    assert (found["bos_token_id"], found["vocab_size"]) == (None, 18)
    with pytest.raises(EvomergeError, match=r"it has no '<a>' \(image_token_id\)"):
        companions.config({"image_token_id": OWN.index("<a>")}, rows, 18)


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_with_its_own_tokens_stays_as_it_is(tied: bool, tmp_path: Path) -> None:
    folder, out = tmp_path / "model", tmp_path / "out"
    save_model(folder, OWN, seed=0, tied=tied, n_rows=24, template="{{ x }}")
    written = transplant(str(folder), str(folder), out)
    assert not written.errors
    before, after = (load_file(f / "model.safetensors") for f in (folder, out))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    for name in ("tokenizer.json", "generation_config.json", "chat_template.jinja"):
        assert (out / name).read_bytes() == (folder / name).read_bytes()
    assert loaded(out).config.to_dict() | {"_name_or_path": ""} == (
        loaded(folder).config.to_dict() | {"_name_or_path": ""}
    )


def save_words(folder: Path, ids: Mapping[str, int]) -> None:
    """The zoo's tokenizer with other ids."""
    tokenizer = Tokenizer(models.WordLevel(dict(ids), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ends = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    known = {role: token for role, token in ends.items() if token in ids}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **known).save_pretrained(folder)


def shuffled_zoo(folder: Path) -> list[str]:
    """A random model whose tokenizer has most of the zoo's tokens in another order, and others."""
    tokens = sorted(AutoTokenizer.from_pretrained(zoo_path("base")).get_vocab())
    words = [*(t for t in tokens if t != "zero"), "nought", "never"]
    random.Random(0).shuffle(words)
    plain = (*PLAIN, *(f"x{i}" for i in range(len(words) - len(PLAIN))))
    save_model(folder, plain, seed=3, n_rows=len(words))
    save_words(folder, {word: row for row, word in enumerate(words)})
    return words


def answers(folder: Path, prompts: list[str]) -> list[str]:
    model: Any = loaded(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt in prompts:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        end = tokenizer.eos_token_id
        said = model.generate(ids, max_new_tokens=4, do_sample=False, eos_token_id=end)[0]
        found.append(tokenizer.decode(said[ids.shape[1] :], skip_special_tokens=True))
    return found


def test_a_model_says_the_same_with_the_same_words_under_other_ids(tmp_path: Path) -> None:
    donor, out = tmp_path / "donor", tmp_path / "out"
    words = shuffled_zoo(donor)
    written = transplant(str(donor), "zoo:math", out, k=8)
    assert len(written.match.missing) == 2
    prompts = [f"compute {a} plus {b} is" for a, b in (("one", "two"), ("four", "three"))]
    prompts += ["list reverse a b c is", "compute six minus two is"]
    assert answers(out, prompts) == answers(zoo_path("math"), prompts)
    assert len(set(answers(out, prompts))) > 1
    assert len(AutoTokenizer.from_pretrained(out)) == len(words)
    # And back: what the zoo lacks there is left out, what it had is what it was.
    transplant("zoo:math", str(out), tmp_path / "back", k=8)
    sources = Sources("zoo:base", {"math": str(tmp_path / "back")})
    assert sources.anchor.folder == zoo_path("base")  # no rows are mapped
    back, math = (loaded(f).state_dict() for f in (tmp_path / "back", zoo_path("math")))
    zero = AutoTokenizer.from_pretrained(zoo_path("math")).get_vocab()["zero"]
    for name, tensor in back.items():
        kept = [r for r in range(len(tensor)) if r != zero] if tensor.ndim == 2 else ...
        assert torch.equal(tensor[kept], math[name][kept]) or name not in (EMBEDDING, HEAD)


def test_what_was_interrupted_does_not_go_on_with_another_tokenizer(tmp_path: Path) -> None:
    save_model(tmp_path / "model", OWN, seed=0)
    whole = Transplant(donor=str(save_donor(tmp_path / "donor")), model=str(tmp_path / "model"))

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_transplant(whole, tmp_path / "out", shard_bytes=4096, writing=stop)
    vocabularies.save_words(tmp_path / "donor", NEW[::-1], "<stop>", "{{ donor }}")
    for name in ("out", "fresh"):
        write_transplant(whole, tmp_path / name, shard_bytes=4096)
    states = [loaded(tmp_path / name).state_dict() for name in ("out", "fresh")]
    assert all(map(torch.equal, *(state.values() for state in states)))


def test_what_cannot_be_transplanted_is_said_in_a_line(tmp_path: Path) -> None:
    save_model(tmp_path / "model", OWN, seed=0)
    save_donor(tmp_path / "donor")
    donor, model = (str(tmp_path / name) for name in ("donor", "model"))
    for device in ("cude", "meta"):
        with pytest.raises(EvomergeError, match=f"a device that torch has here, got '{device}'"):
            transplant(donor, model, tmp_path / "out", device=device)
    with pytest.raises(EvomergeError, match="k of at least 1, got 0"):
        transplant(donor, model, tmp_path / "out", k=0)
    with pytest.raises(EvomergeError, match="a folder of its own"):
        transplant(donor, model, model)
    (tmp_path / "donor" / "tokenizer.json").unlink()
    with pytest.raises(EvomergeError) as error:
        transplant(donor, str(tmp_path / "none"), tmp_path / "out")
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["donor", "model"]
    assert "expected a tokenizer.json in" in lines[0]
    save_words(tmp_path / "donor", {f"y{i}": i for i in range(20)} | {"<x>": 20})
    with pytest.raises(EvomergeError, match="expected tokens in common, got none of"):
        transplant(donor, model, tmp_path / "out")
    save_donor(tmp_path / "donor")
    table = load_file(tmp_path / "model" / "model.safetensors")
    table["model.norm.weight"][0] = torch.nan
    save_file(table, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match=r"1 NaN or infinite in model\.norm\.weight"):
        transplant(donor, model, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_the_command_says_which_rows_are_which(tmp_path: Path) -> None:
    save_model(tmp_path / "model", OWN, seed=0)
    save_donor(tmp_path / "donor", n_rows=24)
    places = [str(tmp_path / name) for name in ("donor", "model", "out")]
    done = CliRunner().invoke(app, ["transplant", *places[:2], "--out", places[2], "-k", "2"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "24 rows, 8 of shared tokens as they are, 1 by role (<eos> for <stop>)" in said
    assert "9 approximated (mean relative error 0." in said
    assert "6 of padding; chat template of the donor" in said
