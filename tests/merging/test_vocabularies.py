"""Models whose vocabularies differ: merged token by token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from evomerge.errors import CheckpointError
from evomerge.merging.candidate import LiveCandidate
from evomerge.merging.folder import write_checkpoint
from evomerge.merging.sources import Sources
from evomerge.models.expert import content_digest
from evomerge.models.reference import AdapterRef, AlignedRef, DeltaRef, ModelRef
from evomerge.models.tokenizer_choice import TokenizerChoice, TokenOf, TokenRow
from evomerge.recipe.recipe import Recipe, Rule
from tests.vocabularies import EMBEDDING, HEAD, PLAIN, rows_by_token, save_model

BASE = (*PLAIN, "<a>", "<b>")
MATH = (*PLAIN, "<b>", "<a>", "<m>")
CODE = (*PLAIN, "<c>", "<a>", "<m>")
C = {"math": 0.7, "code": -0.4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vocabularies")
    base = save_model(root / "base", BASE, seed=0)
    save_model(root / "math", MATH, seed=1, n_rows=24, near=base)
    save_model(root / "code", CODE, seed=2, near=base, eos="<c>", template="{{ 'code' }}")
    return root


def recipe(root: Path, choice: TokenizerChoice | None = None) -> Recipe:
    rule = Rule("task_arithmetic", {"coefficient": C})
    experts = {name: str(root / name) for name in C}
    return Recipe(experts, (rule,), base=str(root / "base"), dtype="float32", tokenizer=choice)


def merged(recipe: Recipe, out: Path) -> tuple[dict[str, int], dict[str, torch.Tensor]]:
    """Write a merge; return its rows by token, as transformers reads both."""
    write_checkpoint(recipe, out)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    tokens = AutoTokenizer.from_pretrained(out).get_vocab()
    assert model.config.vocab_size == model.lm_head.weight.shape[0] > max(tokens.values())
    return tokens, model.state_dict()


def test_without_a_choice_the_base_has_the_vocabulary(root: Path, tmp_path: Path) -> None:
    tokens, found = merged(recipe(root), tmp_path / "out")
    assert tokens == {word: row for row, word in enumerate(BASE)}
    for name in (EMBEDDING, HEAD):
        base, math, code = (
            rows_by_token(root / model, words, name)
            for model, words in (("base", BASE), ("math", MATH), ("code", CODE))
        )
        assert len(found[name]) == len(BASE)
        for word, row in tokens.items():
            expected = base[word] + C["math"] * (math[word] - base[word])
            expected += C["code"] * (code.get(word, base[word]) - base[word])
            torch.testing.assert_close(found[name][row], expected)


def test_a_union_has_all_tokens_and_what_one_model_has_is_that_models(
    root: Path, tmp_path: Path
) -> None:
    tokens, found = merged(recipe(root, TokenizerChoice("union")), tmp_path / "out")
    assert set(tokens) == {*BASE, *MATH, *CODE}
    assert all(tokens[word] == row for row, word in enumerate(BASE))
    math = rows_by_token(root / "math", MATH, EMBEDDING)
    code = rows_by_token(root / "code", CODE, EMBEDDING)
    torch.testing.assert_close(found[EMBEDDING][tokens["<c>"]], code["<c>"])
    mean = (math["<m>"] + code["<m>"]) / 2
    expected = mean + sum(C[n] * (m["<m>"] - mean) for n, m in (("math", math), ("code", code)))
    torch.testing.assert_close(found[EMBEDDING][tokens["<m>"]], expected)


def test_another_models_tokenizer_brings_its_ids_and_special_tokens(
    root: Path, tmp_path: Path
) -> None:
    tokens, found = merged(recipe(root, TokenizerChoice("model:code")), tmp_path / "out")
    assert tokens == {word: row for row, word in enumerate(CODE)}
    assert len(found[HEAD]) == len(CODE)
    out = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    reader = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert out.config.eos_token_id == out.generation_config.eos_token_id == CODE.index("<c>")
    assert (reader.eos_token, reader.chat_template) == ("<c>", "{{ 'code' }}")


@pytest.mark.parametrize(
    "choice",
    [
        None,
        TokenizerChoice("union", pad_to_multiple_of=8),
        TokenizerChoice("union", chat_template="code"),
        TokenizerChoice("model:math", tokens={"<new>": TokenRow()}),
    ],
)
def test_the_live_candidate_answers_what_its_folder_does(
    root: Path, tmp_path: Path, choice: TokenizerChoice | None
) -> None:
    wanted = recipe(root, choice)
    sources = Sources(wanted.base, wanted.experts, tmp_path / "cache", tokenizer=wanted.tokenizer)
    candidate = LiveCandidate(sources, wanted.dtype)
    candidate.materialise(wanted)
    write_checkpoint(wanted, tmp_path / "out")
    folder = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    reader = AutoTokenizer.from_pretrained(sources.anchor.companions)
    assert reader.get_vocab() == AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
    ids = torch.arange(max(reader.get_vocab().values()) + 1)[None]
    assert torch.equal(candidate.model(ids).logits, folder(ids).logits)
    stops = candidate.model.generation_config.eos_token_id, candidate.model.config.eos_token_id
    assert stops == (folder.generation_config.eos_token_id, folder.config.eos_token_id)
    assert stops[0] == reader.eos_token_id


def test_a_template_brings_its_special_tokens_by_name(root: Path, tmp_path: Path) -> None:
    choice = TokenizerChoice("union", chat_template="code")
    tokens, _ = merged(recipe(root, choice), tmp_path / "out")
    reader = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert (reader.eos_token, reader.chat_template) == ("<c>", "{{ 'code' }}")
    settings = GenerationConfig.from_pretrained(tmp_path / "out")
    assert settings.eos_token_id == tokens["<c>"] != CODE.index("<c>")
    assert reader("w1 <c> <b>").input_ids == [tokens[word] for word in ("w1", "<c>", "<b>")]


def test_auto_takes_the_template_that_most_models_have(root: Path, tmp_path: Path) -> None:
    choice = TokenizerChoice("union", chat_template="auto")
    merged(recipe(root, choice), tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == "{{ 'code' }}"


def test_a_template_whose_special_tokens_the_merge_lacks_is_refused(root: Path) -> None:
    wanted = recipe(root, TokenizerChoice(chat_template="code"))
    with pytest.raises(CheckpointError, match=r"tokenizer\.chat_template: .*has no '<c>' \(eos"):
        Sources(wanted.base, wanted.experts, tokenizer=wanted.tokenizer)


def test_rows_of_padding_are_those_of_the_tokenizers_model_or_the_mean_of_all(
    root: Path, tmp_path: Path
) -> None:
    choice = TokenizerChoice("model:math", pad_to_multiple_of=16)
    tokens, found = merged(recipe(root, choice), tmp_path / "out")
    n, table = len(tokens), found[EMBEDDING]
    assert (n, len(table)) == (len(MATH), 32)
    math = AutoModelForCausalLM.from_pretrained(root / "math").state_dict()[EMBEDDING]
    assert torch.equal(table[n:24], math[n:])
    mean = table[:n].mean(0).expand(8, -1)  # of a sum that is linear in the models
    torch.testing.assert_close(table[24:], mean, atol=1e-5, rtol=0)


def test_rows_of_single_tokens_come_from_where_they_are_asked_for(
    root: Path, tmp_path: Path
) -> None:
    rows = {
        "<a>": TokenRow("model:math", force=True),
        "<b>": TokenRow("zero", force=True),
        "<new>": TokenRow(TokenOf("code", token="<c>")),
        "w1": TokenRow(TokenOf("base", token_id=5), force=True),
        "w1<a>": TokenRow("pieces"),
    }
    tokens, found = merged(recipe(root, TokenizerChoice("base", rows)), tmp_path / "out")
    base = rows_by_token(root / "base", BASE, EMBEDDING)
    math = rows_by_token(root / "math", MATH, EMBEDDING)
    code = rows_by_token(root / "code", CODE, EMBEDDING)
    expected = {
        "<a>": math["<a>"],
        "<b>": torch.zeros(16),
        "<new>": code["<c>"],
        "w1": base[BASE[5]],
        "w1<a>": (base["w1"] + base["<a>"]) / 2,
    }
    for token, row in expected.items():
        torch.testing.assert_close(found[EMBEDDING][tokens[token]], row)


def test_tied_models_stay_tied(tmp_path: Path) -> None:
    base = save_model(tmp_path / "base", BASE, seed=0, tied=True)
    for name, words in (("math", MATH), ("code", CODE)):
        save_model(tmp_path / name, words, seed=len(name), near=base, tied=True)
    _, found = merged(recipe(tmp_path, TokenizerChoice("union")), tmp_path / "out")
    assert torch.equal(found[EMBEDDING], found[HEAD])
    assert HEAD not in (tmp_path / "out" / "model.safetensors").read_bytes().decode("latin1")


def test_what_is_done_is_said_in_a_line_per_model(root: Path) -> None:
    wanted = recipe(root)
    sources = Sources(wanted.base, wanted.experts)
    assert sources.vocabulary is not None
    head, base, math, code = sources.vocabulary.notes
    assert "tokens of base, 18 in 18 rows" in head
    assert base == "base: 18 rows as they are"
    assert math == (
        "math: 16 rows as they are, 2 moved, 5 without a token in the merge cut, "
        "1 tokens left out ('<m>')"
    )
    assert code == (
        "code: 16 rows as they are, 1 moved, 1 taken from base, 2 tokens left out ('<c>', '<m>')"
    )


def test_models_without_a_common_tokenizer_are_refused(root: Path, tmp_path: Path) -> None:
    words = (*PLAIN[:3], *(f"other{i}" for i in range(14)))
    save_model(tmp_path / "far", words, seed=3)
    with pytest.raises(CheckpointError, match=r"experts\.far: .*shares most tokens"):
        Sources(str(root / "base"), {"far": str(tmp_path / "far")})


def test_names_that_no_model_has_are_faults_of_the_recipe(root: Path) -> None:
    rows = {"<a>": TokenRow("model:cod"), "<b>": TokenRow(force=True)}
    choice = TokenizerChoice("model:maths", rows, chat_template="codes")
    paths = {fault.path for fault in recipe(root, choice).faults()}
    assert paths == {
        ("tokenizer", "source"),
        ("tokenizer", "chat_template"),
        ("tokenizer", "tokens", "<a>", "source"),
        ("tokenizer", "tokens", "<b>", "force"),
    }


def test_a_token_that_its_model_lacks_is_refused(root: Path) -> None:
    wanted = recipe(root, TokenizerChoice(tokens={"<new>": TokenRow("model:math")}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.tokens.*'<new>', which it does not"):
        Sources(wanted.base, wanted.experts, tokenizer=wanted.tokenizer)


def test_statistics_of_another_map_of_the_same_files_are_others(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    norms = []
    for choice in (TokenizerChoice(), TokenizerChoice("union"), TokenizerChoice()):
        wanted = replace(recipe(root, choice), rules=())
        sources = Sources(wanted.base, wanted.experts, tmp_path / "x", tokenizer=choice)
        norms.append(sources.statistics(EMBEDDING).task_gram.tolist())
    assert norms[0] == norms[2] != norms[1]


def test_what_an_expert_is_made_of_counts_on_another_vocabulary_too(root: Path) -> None:
    zeros = TokenizerChoice("union", tokens={"<m>": TokenRow("zero", force=True)})
    digests = [
        content_digest(Sources(str(root / "base"), {"e": expert}, tokenizer=choice).experts["e"])
        for expert, choice in (
            (AlignedRef(str(root / "math"), "weights"), TokenizerChoice("union")),
            (AlignedRef(str(root / "math"), "transport"), TokenizerChoice("union")),
            (str(root / "math"), TokenizerChoice("union")),
            (str(root / "math"), zeros),
        )
    ]
    assert len(set(digests)) == 4


def test_a_recipe_keeps_its_choice_in_its_file(root: Path) -> None:
    from evomerge.recipe.files import recipe_from_data

    rows = {"<a>": TokenRow(TokenOf("math", token_id=3), force=True), "<b>": TokenRow("zero")}
    wanted = recipe(root, TokenizerChoice("union", rows, 64, "auto"))
    again = recipe_from_data(json.loads(json.dumps(wanted.as_data())))
    assert again == wanted
    assert again.digest != replace(wanted, tokenizer=None).digest


def test_an_adapter_of_embeddings_is_what_peft_merges_it_to(root: Path, tmp_path: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(root / "base")
    targets = ["embed_tokens", "lm_head", "up_proj"]
    tuned = get_peft_model(base, LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    tuned.save_pretrained(str(tmp_path / "lora"))
    expected = tuned.merge_and_unload().state_dict()
    plain = AutoModelForCausalLM.from_pretrained(root / "base").state_dict()
    code = rows_by_token(root / "code", CODE, EMBEDDING)
    experts: dict[str, ModelRef] = {
        "math": AdapterRef(str(tmp_path / "lora"), on=str(root / "base")),
        "code": str(root / "code"),
    }
    wanted = replace(recipe(root, TokenizerChoice("union")), experts=experts)
    tokens, found = merged(wanted, tmp_path / "out")
    for word, row in ((word, row) for row, word in enumerate(BASE)):
        delta = C["math"] * (expected[EMBEDDING][row] - plain[EMBEDDING][row])
        delta += C["code"] * (code.get(word, plain[EMBEDDING][row]) - plain[EMBEDDING][row])
        torch.testing.assert_close(found[EMBEDDING][tokens[word]], plain[EMBEDDING][row] + delta)
    up = "model.layers.0.mlp.up_proj.weight"
    theirs = AutoModelForCausalLM.from_pretrained(root / "code").state_dict()[up]
    delta = C["math"] * (expected[up] - plain[up]) + C["code"] * (theirs - plain[up])
    torch.testing.assert_close(found[up], plain[up] + delta)


def test_a_delta_of_another_vocabulary_than_the_bases_is_refused(root: Path) -> None:
    experts = {"chat": DeltaRef(str(root / "code"), minus=str(root / "code"))}
    with pytest.raises(CheckpointError, match=r"experts\.chat: .*a delta to have the vocabulary"):
        Sources(str(root / "base"), experts, tokenizer=TokenizerChoice("union"))


def written_out(root: Path, tokens: dict[str, int], out: Path) -> None:
    """Write the models with the rows of a union, by transformers."""
    known = {"base": BASE, "math": MATH, "code": CODE}
    for name in (EMBEDDING, HEAD):
        rows = {model: rows_by_token(root / model, known[model], name) for model in known}
        for model in known:
            folder = out / model if (out / model).is_dir() else root / model
            live = AutoModelForCausalLM.from_pretrained(folder)
            live.resize_token_embeddings(len(tokens), mean_resizing=False)
            for token, row in tokens.items():
                holders = [r[token] for r in rows.values() if token in r]
                base = rows["base"].get(token, torch.stack(holders).mean(0))
                live.state_dict()[name][row] = rows[model].get(token, base)
            live.save_pretrained(out / model)


@pytest.mark.parametrize("method", ["tsv_m", "ties"])
def test_prepared_and_trimmed_task_vectors_are_of_merged_rows(
    root: Path, tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    rule = Rule(method, {"coefficient": 0.8})
    wanted = replace(recipe(root, TokenizerChoice("union")), rules=(rule,))
    tokens, found = merged(wanted, tmp_path / "out")
    written_out(root, tokens, tmp_path / "plain")
    plain = replace(recipe(tmp_path / "plain"), rules=(rule,))
    write_checkpoint(plain, tmp_path / "expected")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "expected").state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


def test_slopes_are_what_finite_differences_find(root: Path, tmp_path: Path) -> None:
    wanted = recipe(root, TokenizerChoice("union"))
    sources = Sources(wanted.base, wanted.experts, tmp_path, tokenizer=wanted.tokenizer)
    candidate = LiveCandidate(sources, "float32")
    ids = torch.tensor([[3, 17, 18, 19, 5, 16]])

    def loss(math: float) -> torch.Tensor:
        rule = Rule("task_arithmetic", {"coefficient": {**C, "math": math}})
        candidate.materialise(replace(wanted, rules=(rule,)))
        logits = candidate.model(ids).logits[0, :-1].double()
        return torch.nn.functional.cross_entropy(logits, ids[0, 1:])

    loss(C["math"])
    with candidate.slopes() as found:
        logits = candidate.model(ids).logits[0, :-1].double()
        torch.nn.functional.cross_entropy(logits, ids[0, 1:]).backward()
    slope = found.along_recipe()
    with torch.no_grad():
        numeric = float(loss(C["math"] + 1e-2) - loss(C["math"] - 1e-2)) / 2e-2
    math = sum(own["coefficient"][0] for own in slope.tensors.values())  # type: ignore[index]
    assert math == pytest.approx(numeric, rel=1e-2, abs=1e-4)
