"""Smooth losses against brute force: plain transformers, one unpadded sequence at a time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
import torch
import yaml
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.evaluation import PreparedSuites
from evomerge.evaluation.item_losses import LossSettings
from evomerge.evaluation.transformers_engine import TransformersEngine
from tests.architectures import tiny_config

from .tiny_tasks import GROUP, write_task

Q = 0.3
ALL = ("tiny_generate", "tiny_filters", "tiny_likelihood", "tiny_rolling", "tiny_group")
# Tied, a sliding window, experts (whose kernels take no float64).
FAMILIES = {"gpt2": torch.float64, "mistral": torch.float64, "mixtral": torch.float32}


def tiny(
    family: str, tokenizer, dtype: torch.dtype = torch.float64, **settings: int
) -> PreTrainedModel:
    torch.manual_seed(3)
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
    config = tiny_config(family, vocab_size=len(tokenizer), pad_token_id=3, **special, **settings)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def log_probs(model, tokenizer, text: str) -> tuple[list[int], torch.Tensor]:
    """Tokens of a text, and what the model predicts after each; an empty prompt is <s>."""
    tokens = tokenizer.encode(text)
    return tokens, model(torch.tensor([tokens])).logits[0].log_softmax(-1)


def likelihood(model, tokenizer, context: str, answer: str, ends: str = "") -> torch.Tensor:
    """Log-probability of an answer, and that one of the ends follows."""
    tokens, found = log_probs(model, tokenizer, f"{context} {answer}")
    start = len(tokenizer.encode(context))
    total = sum(found[i - 1, tokens[i]] for i in range(start, len(tokens)))
    after = [tokenizer.convert_tokens_to_ids(end) for end in ends.split()]
    return total + (found[-1].exp()[after].sum().log() if after else 0)


def power(p: torch.Tensor) -> torch.Tensor:
    return (1 - p**Q) / Q


def choice(model, tokenizer, context: str, doc: Mapping, size: Callable = lambda _: 1):
    rates = [likelihood(model, tokenizer, context, c) / size(c) for c in doc["choices"]]
    return torch.stack(rates).softmax(-1)


def prompt(doc: Mapping) -> str:
    return f"{doc['a']} plus {doc['b']} is"


def text(doc: Mapping) -> str:
    return f"{prompt(doc)} {doc['c']}"


# By objective: the loss of an item, given p(context, answer, ends) and c(context, doc, size),
# log-probability of an answer and probability of the gold choice, and the mean size of an answer.
FORMULAS: dict[tuple[str, str], Callable] = {
    ("tiny_generate", "exact_match"): lambda p, c, d, _: power(p(prompt(d), d["c"], "</s>").exp()),
    # The first word counts, whatever follows.
    ("tiny_filters", "exact_match,first"): lambda p, c, d, _: power(
        p(f"what is {d['a']} minus {d['b']} ?", d["c"]).exp()
    ),
    ("tiny_choice", "acc"): lambda p, c, d, _: power(c(prompt(d), d)),
    ("tiny_choice", "acc_norm"): lambda p, c, d, _: power(c(prompt(d), d, len)),
    ("tiny_choice", "gold_probability"): lambda p, c, d, _: power(
        c(prompt(d), d, lambda answer: 1 + len(answer))
    ),
    ("tiny_fewshot", "acc"): lambda p, c, d, _: power(c(d["prompt"], d)),
    ("tiny_group", "acc"): lambda p, c, d, _: power(c(d["prompt"], d)),
    ("tiny_likelihood", "acc"): lambda p, c, d, _: power(p(prompt(d), d["c"]).exp()),
    ("tiny_likelihood", "perplexity"): lambda p, c, d, _: -p(prompt(d), d["c"]),
    ("tiny_likelihood", "gold_bpb"): lambda p, c, d, mean: (
        -p(prompt(d), d["c"]) / mean(lambda d: 1 + len(d["c"]))
    ),
    ("tiny_rolling", "word_perplexity"): lambda p, c, d, mean: (
        -p("<s>", text(d)) / mean(lambda d: len(text(d).split()))
    ),
    ("tiny_rolling", "bits_per_byte"): lambda p, c, d, mean: (
        -p("<s>", text(d)) / mean(lambda d: len(text(d)))
    ),
}
OBJECTIVES = tuple(FORMULAS)


def of_items(objective, prepared, model, tokenizer) -> list[torch.Tensor]:
    """Losses of an objective's items, from the formulas and the tasks' files."""
    names = ("tiny_choice", "tiny_fewshot") if objective[0] == "tiny_group" else objective[:1]
    items = [item for task in prepared.tasks if task.name in names for item in task.items]
    docs = [{**item.doc, "prompt": item.requests[0].args[0]} for item in items]

    def p(*texts: str) -> torch.Tensor:
        return likelihood(model, tokenizer, *texts)

    def c(context: str, doc: Mapping, size: Callable = lambda _: 1) -> torch.Tensor:
        return choice(model, tokenizer, context, doc, size)[doc["gold"]]

    def mean(size: Callable) -> float:
        return sum(map(size, docs)) / len(docs)

    return [FORMULAS[objective](p, c, doc, mean) for doc in docs]


def gradients(model: PreTrainedModel) -> list[torch.Tensor]:
    found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    model.zero_grad()
    return found


@pytest.fixture
def everything(suite):
    return dataclasses.replace(suite, tasks=ALL, limit=4)


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_are_those_of_plain_transformers(family, everything, tokenizer):
    model, exact = tiny(family, tokenizer, FAMILIES[family]), FAMILIES[family] == torch.float64
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    losses = prepared.losses(OBJECTIVES, LossSettings(q=Q))
    assert losses.reasons == (None,) * len(OBJECTIVES)
    for k, objective in enumerate(OBJECTIVES):
        theirs = of_items(objective, prepared, model, tokenizer)
        assert losses.n_items[k] == len(theirs)
        rows = list(range(len(theirs)))[::2]
        mean = sum(theirs[row] for row in rows) / len(rows)
        mean.backward()
        expected = gradients(model)
        near = pytest.approx(mean.item(), rel=1e-9 if exact else 1e-5)
        assert losses.backward(k, rows) == near, objective
        torch.testing.assert_close(gradients(model), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("metric", "to_loss"),
    [("word_perplexity", math.log), ("bits_per_byte", lambda bits: bits * math.log(2))],
)
def test_texts_in_windows_have_the_loss_of_their_metric(metric, to_loss, everything, tokenizer):
    model = tiny("gpt2", tokenizer, max_position_embeddings=4)
    suite = dataclasses.replace(everything, tasks=("tiny_rolling",))
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    value = prepared.score().metrics["tiny_rolling"][metric].value
    losses = prepared.losses([("tiny_rolling", metric)], LossSettings(n_tokens=4))
    assert all(len(item.readings) == 2 for item in losses.items(0))
    assert losses.backward(0, range(losses.n_items[0])) == pytest.approx(to_loss(value), rel=1e-9)


@contextmanager
def passes(model: PreTrainedModel) -> Iterator[list[tuple[int, int]]]:
    """Shapes of what goes through the model, and whether gradients are wanted."""
    shapes: list[tuple[int, int]] = []
    with model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: shapes.append(tuple(inputs[0].shape))
    ):
        yield shapes


MUTUAL = [{"metric": name, "aggregation": "mean"} for name in ("acc", "acc_mutual_info")]


@pytest.mark.parametrize("n_tokens", [1, 20, 60])
def test_microbatches_change_nothing_but_memory(n_tokens, everything, folder, tokenizer):
    write_task(folder, "tiny_choice", metric_list=MUTUAL)
    model = tiny("llama", tokenizer)
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    objectives = [("tiny_choice", "acc_mutual_info"), ("tiny_group", "acc"), *OBJECTIVES[-4:]]
    small, large = (
        prepared.losses(objectives, LossSettings(n_tokens=n)) for n in (n_tokens, 10**6)
    )
    for k, n in enumerate(large.n_items):
        with passes(model) as shapes:
            expected = large.backward(k, range(n))
        assert len(shapes) == 1
        gradient = gradients(model)
        with passes(model) as shapes:
            assert small.backward(k, range(n)) == pytest.approx(expected, rel=1e-9)
        torch.testing.assert_close(gradients(model), gradient, rtol=1e-3, atol=1e-6)
        assert all(count == 1 or count * length <= n_tokens for count, length in shapes)


@contextmanager
def keeping() -> Iterator[dict[int, int]]:
    """Sizes of the tensors that are kept for the way back, by place."""
    sizes: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        sizes[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield sizes


@pytest.mark.parametrize("family", ["gpt2", "mixtral"])
def test_checkpointing_changes_nothing_but_memory(family, everything, tokenizer):
    model = tiny(family, tokenizer, torch.float32)
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    kept, found = [], []
    for checkpointing in (False, True):
        losses = prepared.losses(OBJECTIVES[2:3], LossSettings(checkpointing=checkpointing))
        with keeping() as sizes:
            found.append((losses.backward(0, range(4)), gradients(model)))
        kept.append(sum(sizes.values()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1])
    assert kept[1] < 0.7 * kept[0]


def test_the_model_is_left_as_it_was(everything, tokenizer):
    model = tiny("gpt2", tokenizer, torch.float32).train()  # its dropout is 0.1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    model.train()
    losses = prepared.losses(OBJECTIVES[2:3], LossSettings(checkpointing=True))
    with torch.no_grad():
        once, again = (losses.backward(0, [0, 1]) for _ in range(2))
    assert once == again
    assert model.training
    assert all(not vars(module).get("forward") for module in model.modules())
    assert all(p.grad.grad_fn is None and p.grad_fn is None for p in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before)


def test_bf16_is_read_in_float32(everything, tokenizer):
    model = tiny("llama", tokenizer, torch.bfloat16)
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    losses = prepared.losses([("tiny_likelihood", "perplexity")])
    loss = losses.backward(0, [0])
    gradient = gradients(model)
    (item,) = prepared.tasks[2].items[:1]
    tokens = torch.tensor([tokenizer.encode("".join(item.requests[0].args))])
    expected = -model(tokens).logits[0, -2].float().log_softmax(-1)[tokens[0, -1]]
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    expected.backward()
    torch.testing.assert_close(gradients(model), gradient)
    assert gradient[0].dtype == torch.bfloat16


def test_entropies_need_no_gold_answers(everything, folder, tokenizer):
    model = tiny("gpt2", tokenizer)
    objectives = [("tiny_choice", "acc"), ("tiny_generate", "exact_match")]
    objectives.append(("tiny_rolling", "bits_per_byte"))
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    losses = prepared.losses(objectives, LossSettings("entropy"))

    def entropy(log_p: torch.Tensor) -> torch.Tensor:
        return -(log_p.exp() * log_p).sum(-1)

    docs = {task.name: task.items[1].doc for task in prepared.tasks}
    doc = docs["tiny_choice"]
    chosen = choice(model, tokenizer, prompt(doc), doc).log()
    doc = docs["tiny_generate"]
    first = log_probs(model, tokenizer, prompt(doc))[1][-1]
    doc = docs["tiny_rolling"]
    text = log_probs(model, tokenizer, f"<s> {prompt(doc)} {doc['c']}")[1][:-1]
    for k, expected in enumerate((entropy(chosen), entropy(first), entropy(text).mean())):
        expected.backward()
        gradient = gradients(model)
        assert losses.backward(k, [1]) == pytest.approx(expected.item(), rel=1e-9)
        torch.testing.assert_close(gradients(model), gradient, rtol=1e-3, atol=1e-6)


def reasons(suite, model, tokenizer, *objectives, **settings) -> tuple[str | None, ...]:
    prepared = PreparedSuites.of([suite], "search", model, tokenizer, **settings)
    losses = prepared.losses(objectives)
    assert [n > 0 for n in losses.n_items] == [reason is None for reason in losses.reasons]
    return losses.reasons


def test_what_has_no_slope_says_why_in_a_line(everything, folder, tokenizer):
    model = tiny("llama", tokenizer, torch.float32)
    sampled = {"until": ["."], "max_gen_toks": 4, "do_sample": True, "temperature": 0.7}
    write_task(folder, "tiny_generate", generation_kwargs=sampled)
    write_task(folder, "tiny_filters", doc_to_target="{{a}} or {{b}}")  # two words, one is read
    write_task(folder, "tiny_choice", doc_to_target="none of them")
    objectives = [
        *(("cost", "kl:base"), ("tiny_generate", "exact_match")),
        *(("tiny_filters", "exact_match,first"), ("tiny_choice", "acc"), ("tiny_group", "acc")),
        ("tiny_likelihood", "acc"),
    ]
    found = reasons(everything, model, tokenizer, *objectives)
    assert found == (
        "it is no score of the items of a task",
        "tiny_generate: its answers are drawn at random; set do_sample: false",
        "tiny_filters: exact_match,first accepts no gold text as an answer, and no parent was "
        "asked",
        "tiny_choice: no item has a gold answer",
        "tiny_choice: no item has a gold answer",
        None,
    )


class Elsewhere(TransformersEngine):
    """An engine whose model is no live one."""

    sloped_model = None


def test_an_engine_that_runs_the_model_elsewhere_has_no_slopes(everything, tokenizer):
    model = tiny("llama", tokenizer, torch.float32)
    found = reasons(everything, model, tokenizer, ("tiny_choice", "acc"), make_engine=Elsewhere)
    assert found == ("engine vllm keeps nothing to take slopes through; set engine: transformers",)


def test_tasks_of_a_group_count_as_its_metric_says(everything, folder, tokenizer):
    model = tiny("gpt2", tokenizer)
    rule = {**GROUP["aggregate_metric_list"][0], "weight_by_size": False}
    group = {**GROUP, "aggregate_metric_list": [rule]}
    (folder / "tiny_group.yaml").write_text(yaml.safe_dump(group))
    rows = "\n".join((folder / "data" / "search.jsonl").read_text().splitlines()[:2])
    (folder / "data" / "few.jsonl").write_text(rows + "\n")
    files = {split: f"data/{split}.jsonl" for split in ("validation", "test", "train")}
    data = {"data_files": {**files, "search": "data/few.jsonl"}}
    write_task(folder, "tiny_choice", dataset_kwargs=data)
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    names = ("tiny_choice", "tiny_fewshot", "tiny_group")
    losses = prepared.losses([(name, "acc") for name in names])
    assert losses.n_items == (2, 4, 6)
    one, other, both = (losses.backward(k, range(n)) for k, n in enumerate(losses.n_items))
    assert both == pytest.approx((one + other) / 2)


def test_a_stop_string_ends_an_answer_like_the_end_token(everything, folder, tokenizer):
    strict = {"function": "regex", "regex_pattern": r"^(\w+) ?$"}
    filters = [{"name": "none", "filter": [strict, {"function": "take_first"}]}]
    write_task(folder, "tiny_generate", filter_list=filters)
    model = tiny("gpt2", tokenizer)
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    losses = prepared.losses([("tiny_generate", "exact_match")], LossSettings(q=Q))
    doc = prepared.tasks[0].items[0].doc
    expected = power(likelihood(model, tokenizer, prompt(doc), doc["c"], "</s> .").exp())
    assert losses.backward(0, [0]) == pytest.approx(expected.item(), rel=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "qwen3_moe"])
@pytest.mark.filterwarnings("ignore:Expected a tensor")  # of the tracker
@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_of_a_step_is_reckoned_from_above_and_within_reason(
    family, checkpointing, everything, tokenizer
):
    model = tiny(family, tokenizer, torch.float32, hidden_size=64, intermediate_size=160)
    settings = LossSettings(n_tokens=200, checkpointing=checkpointing)
    prepared = PreparedSuites.of([everything], "search", model, tokenizer)
    losses = prepared.losses([("tiny_fewshot", "acc")], settings)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    tracker = MemTracker()
    with tracker:
        losses.backward(0, range(4))
    peak = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    reckoned = losses.step_bytes(4)
    assert peak < reckoned < 5 * peak
    assert losses.step_bytes(1) < reckoned
