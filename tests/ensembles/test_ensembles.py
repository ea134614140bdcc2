"""Ensembles say what the formulas of their rules say, with a cache and without."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from evomerge.api.evaluating import evaluate
from evomerge.cli.main import app
from evomerge.config.presets import Presets
from evomerge.ensembles.file import load_ensemble, read_ensemble
from evomerge.ensembles.loading import LiveEnsemble
from evomerge.ensembles.voting import VotingEngine
from evomerge.errors import CheckpointError, ConfigError
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.transformers_engine import TransformersEngine
from tests.tiny import WORDS, save_tiny_llama, save_tokenizer

TASKS = Presets().names("evaluators")["zoo"].parent / "tasks"
TOKENS = torch.tensor([[3, 9, 4, 11, 5, 7, 21, 8], [5, 2, 8, 30, 12, 6, 19, 4]])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreTrainedModel]:
    folder = tmp_path_factory.mktemp("models")
    for i in range(5):
        save_tiny_llama(folder / str(i), seed=i, dtype=torch.float32, n_layers=2 + i % 2)
        model = AutoModelForCausalLM.from_pretrained(folder / str(i))
        for parameter in model.parameters():  # so that models differ in what they say
            parameter.data *= 3
        model.save_pretrained(folder / str(i))
    paths = [folder / str(i) for i in range(5)]
    return {str(path): AutoModelForCausalLM.from_pretrained(path).eval() for path in paths}


def live(models: dict[str, PreTrainedModel], n: int, **settings: Any) -> LiveEnsemble:
    content = {"ensemble": {"models": list(models)[:n], **settings}}
    return LiveEnsemble(read_ensemble(content, Path()))


def wanted(models: dict[str, PreTrainedModel], by: str, tokens: torch.Tensor) -> torch.Tensor:
    """Probabilities by the rules' own formulas, with these weights."""
    with torch.no_grad():
        logits = [model(tokens).logits.double() for model in list(models.values())[:3]]
    if by == "proxy":
        return torch.softmax(logits[0] + 0.5 * (logits[1] - logits[2]), dim=-1)
    if by == "logits":
        return torch.softmax((2 * logits[0] + logits[1] + logits[2]) / 4, dim=-1)
    shares = torch.tensor([0.5, 0.25, 0.25]).reshape(-1, 1, 1, 1)
    return (shares * torch.stack(logits).softmax(-1)).sum(0)


SETTINGS: dict[str, dict[str, Any]] = {
    "probabilities": {"weights": [2, 1, 1]},
    "logits": {"weights": [2, 1, 1]},
    "proxy": {"alpha": 0.5},
}


@pytest.mark.parametrize("by", SETTINGS)
def test_predictions_are_mixed_by_the_rule(by: str, models: dict[str, PreTrainedModel]) -> None:
    model = live(models, 3, by=by, **SETTINGS[by]).model
    with torch.no_grad():
        found = model(TOKENS).logits.exp().double()
    torch.testing.assert_close(found, wanted(models, by, TOKENS), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("by", SETTINGS)
def test_answers_are_those_of_the_whole_text_read_again_for_every_token(
    by: str, models: dict[str, PreTrainedModel]
) -> None:
    made = live(models, 3, by=by, **SETTINGS[by])
    texts = ["w1 w2 w3 w4", "w9", "w7 w8 w20"]
    answers = []
    for text in texts:
        tokens = [WORDS.index(word) for word in text.split()]
        start = len(tokens)
        while len(tokens) < start + 6 and tokens[-1] != 1:
            likeliest = wanted(models, by, torch.tensor([tokens]))[0, -1].argmax()
            tokens.append(int(likeliest))
        kept = [t for t in tokens[start:] if WORDS[t] not in ("<eos>", "<pad>", "<unk>")]
        answers.append(" ".join(WORDS[t] for t in kept))
    engine = made.make_engine(made.model, made.tokenizer, "auto")
    requests = [
        request("generate_until", text, {"until": ["zz"], "max_gen_toks": 6}, i)
        for i, text in enumerate(texts)
    ]
    assert [a[0].response for a in engine.prepare(requests).run()] == answers
    assert len(set(answers)) > 1
    tokens = made.tokenizer(texts[0], return_tensors="pt")
    own = made.model.generate(**tokens, max_new_tokens=6, do_sample=False)[0, 4:]  # type: ignore[operator]
    assert made.tokenizer.decode(own, skip_special_tokens=True) == answers[0]


def save_windowed(folder: Path, *, window: int, start: int) -> str:
    """A model whose layers look back over a few tokens only, from some layer on."""
    torch.manual_seed(start)
    settings: dict[str, Any] = {
        "vocab_size": len(WORDS) + start,
        "hidden_size": 16,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "use_sliding_window": True,
        "sliding_window": window,
        "max_window_layers": start,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
    }
    config = Qwen2Config(**settings)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def test_windows_are_those_of_each_model(
    models: dict[str, PreTrainedModel], tmp_path: Path
) -> None:
    a, b, c = (
        save_windowed(tmp_path / name, window=window, start=start)
        for name, window, start in (("a", 4, 1), ("b", 4, 2), ("c", 6, 1))
    )
    prompt = torch.arange(3, 15)[None]
    for names in ([a, b], [next(iter(models)), a]):
        model = LiveEnsemble(read_ensemble({"ensemble": {"models": names}}, tmp_path)).model
        tokens = prompt
        with torch.no_grad():
            for _ in range(6):
                likeliest = model(tokens).logits[:, -1:].argmax(-1)
                tokens = torch.cat([tokens, likeliest], dim=-1)
        found = model.generate(prompt, max_new_tokens=6, do_sample=False, eos_token_id=-1)  # type: ignore[operator]
        assert found.tolist() == tokens.tolist()
    with pytest.raises(CheckpointError, match="remember keys and values alike"):
        _ = LiveEnsemble(read_ensemble({"ensemble": {"models": [a, c]}}, tmp_path)).model


def request(kind: str, text: str, other: Any, item: int) -> Instance:
    return Instance(
        request_type=kind, doc={}, arguments=(text, other), idx=0, metadata=("task", item, 1)
    )


@pytest.mark.parametrize("by", ["probabilities", "vote"])
def test_a_model_with_itself_scores_as_alone(by: str) -> None:
    """A vote is of likelihoods, so that what is chosen by likelihood per byte is the same."""

    def scores(model: Any) -> dict[str, float]:
        table = evaluate(model, ["zoo_facts", "zoo_list"], include_path=TASKS, limit=40)
        rows = zip(table["task"], table["metric"], table["value"], strict=True)
        return {f"{task} {metric}": value for task, metric, value in rows}

    alone = scores("zoo:list")
    both = scores({"ensemble": {"models": ["zoo:list"] * 2, "by": by}})
    assert alone["zoo_list exact_match"] > 0.5
    if by == "vote":
        alone["zoo_facts acc_norm"] = alone["zoo_facts acc"]
    assert both == alone


def test_votes_are_counted(models: dict[str, PreTrainedModel]) -> None:
    made = live(models, 5, by="vote")
    contexts = [f"w{i} w{2 * i % 25}" for i in range(12)]
    choices = [" w3 w1", " w5", " w14 w2 w6", " w11"]
    requests = [
        request("loglikelihood", context, choice, i)
        for i, context in enumerate(contexts)
        for choice in choices
    ]
    engine = made.make_engine(made.model, made.tokenizer, 4)
    assert isinstance(engine, VotingEngine)
    voted = [a[0].response[0] for a in engine.prepare(requests).run()]  # type: ignore[index]
    said = []
    for model in made.members:
        own = TransformersEngine(model, made.tokenizer, 4).prepare(requests).run()
        said.append([answers[0].response[0] for answers in own])  # type: ignore[index]
    n, contested = len(choices), 0
    for i in range(len(contexts)):
        one = slice(i * n, i * n + n)
        votes = Counter(max(range(n), key=own[one].__getitem__) for own in said)
        (first, most), *others = votes.most_common()
        contested += bool(others)
        tied = {choice for choice, count in votes.items() if count == most}
        winner = max(range(n), key=voted[one].__getitem__)
        assert winner in tied
        assert first in tied
        assert voted[one][winner] == 0
        assert all(value <= -1 for choice, value in enumerate(voted[one]) if choice != winner)
    assert contested > 3


def test_weights_decide_a_vote(models: dict[str, PreTrainedModel]) -> None:
    requests = [
        request("generate_until", f"w{i}", {"until": ["zz"], "max_gen_toks": 3}, i)
        for i in range(6)
    ]

    def answers(**settings: Any) -> list[object]:
        made = live(models, 3, by="vote", **settings)
        engine = made.make_engine(made.model, made.tokenizer, 4)
        return [a[0].response for a in engine.prepare(requests).run()]

    alone = [
        [
            a[0].response
            for a in TransformersEngine(m, live(models, 2).tokenizer, 4).prepare(requests).run()
        ]
        for m in list(models.values())[:3]
    ]
    assert alone[0] != alone[2]
    assert answers(weights=[1, 1, 3]) == alone[2]
    assert answers(weights=[3, 1, 1]) == alone[0]


def test_costs_are_those_of_all_models_together(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(yaml.safe_dump({"ensemble": {"models": ["zoo:facts", "zoo:math"]}}))
    arguments = ["evaluate", str(file), "--evaluator", "zoo", "--split", "validation", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    n = sum(
        parameter.numel() for name in ("facts", "math") for parameter in live_zoo(name).parameters()
    )
    assert content["costs"] == {"parameters": n, "active_parameters": n, "forwards": 2}
    assert content["results"]["zoo_facts"]["acc"]["n"] > 0


def live_zoo(name: str) -> PreTrainedModel:
    from evomerge.models.zoo import zoo_path

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(zoo_path(name))
    return model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{models: [a, b], by: product}", "1: ensemble.by: "),
        (
            "{models: [a], weigths: [1]}",
            "1: ensemble.weigths: unknown key; did you mean 'weights'?",
        ),
        ("{models: [a]}", "1: ensemble.models: expected at least two models, got 1"),
        ("{models: [a, b], by: proxy}", "1: ensemble.models: expected a large model, a small"),
        ("{models: [a, b], alpha: 2}", "1: ensemble.alpha: by: probabilities has weights"),
        ("{models: [a, b, c], by: proxy, alpha: .nan}", "1: ensemble.alpha: expected a finite nu"),
        ("{models: [a, b], weights: [1]}", "1: ensemble.weights: expected one weight for each"),
        ("{models: [a, b], weights: [1, -1]}", "1: ensemble.weights: expected weights of at l"),
    ],
)
def test_faults_have_lines(text: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(f"ensemble: {text}\n")
    with pytest.raises(ConfigError) as error:
        load_ensemble(file)
    assert str(error.value.faults[0]).startswith(f"{file}:{expected}")


def test_models_that_cannot_answer_together_are_all_named(
    models: dict[str, PreTrainedModel], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    save_tiny_llama(other, seed=0)
    tokens = other / "tokenizer.json"
    tokens.write_text(tokens.read_text().replace('"w3"', '"new"').replace('"w4"', '"w3"'))
    first = next(iter(models))
    content = {"ensemble": {"models": [first, "nowhere/at/all", str(other)]}}
    with pytest.raises(CheckpointError) as error:
        LiveEnsemble(read_ensemble(content, tmp_path))
    assert [fault.path for fault in error.value.faults] == [
        ("ensemble", "models", 1),
        ("ensemble", "models", 2),
    ]
    assert "'w3' is 7 instead of 6" in str(error.value.faults[1])
