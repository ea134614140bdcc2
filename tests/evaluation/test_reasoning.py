"""Reasoning before the answer is no part of it; what is cut off is counted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.errors import EvaluationError
from evomerge.evaluation import PreparedSuites, Suite
from evomerge.evaluation.answers import output_tokens, truncated
from evomerge.evaluation.generation import Generation
from evomerge.evaluation.reasoning import FAMILIES, Tags, tags_of

from .bigrams import bigram_llama, word_tokenizer

FOLLOWING = {
    "q1": "<think>", "<think>": "hm", "hm": ".", ".": "</think>", "</think>": "two", "two": "</s>",
    "q2": "three", "three": "</s>",
    "q3": "loop", "loop": "loop",
    "q4": "a", "a": "b", "b": "c", "c": "<think>",
}  # fmt: skip
GOLDS = {"q1": "two", "q2": "three", "q3": "two", "q4": "c"}
CHAT = (
    "{{ messages[0].content }}{% if add_generation_prompt %} <think>"
    "{% if enable_thinking is defined and not enable_thinking %} </think>{% endif %} {% endif %}"
)


def live(
    hidden: bool = False, chat_template: str | None = None
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    words = list(dict.fromkeys([*FOLLOWING, *FOLLOWING.values()]))
    tags = ("<think>", "</think>") if hidden else ()
    words.remove("</s>")
    tokenizer = word_tokenizer(words, hidden=tags, chat_template=chat_template)
    return bigram_llama(tokenizer, {w: {after: 1.0} for w, after in FOLLOWING.items()}), tokenizer


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    return thinking_suite(tmp_path, GOLDS)


def thinking_suite(folder: Path, golds: dict[str, str], **changes: object) -> Suite:
    rows = [json.dumps({"q": q, "gold": gold}) for q, gold in golds.items()]
    (folder / "data.jsonl").write_text("\n".join(rows) + "\n")
    task = {
        "task": "tiny_thinking",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "data.jsonl"}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{q}}",
        "doc_to_target": "{{gold}}",
        "generation_kwargs": {"until": [], "max_gen_toks": 6},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        **changes,
    }
    (folder / "tiny_thinking.yaml").write_text(yaml.safe_dump(task))
    return Suite("tiny", ("tiny_thinking",), include_path=folder, splits={"search": 1.0})


def responses(prepared: PreparedSuites) -> list[str]:
    return [str(request.resps[0]) for request in prepared.tasks[0].task.instances]


def theirs(prompts: list[str], hidden: bool) -> list[str]:
    """What lm-eval's own model leaves of answers; alone, as in batches it reads on."""
    model, tokenizer = live(hidden)
    end = tokenizer.convert_tokens_to_ids("</think>") if hidden else "</think>"
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, think_end_token=end)
    settings = {"until": [], "max_gen_toks": 6}
    requests = [Instance("generate_until", {}, (p, settings), 0, ("t", 0, 1)) for p in prompts]
    return lm.generate_until(requests, disable_tqdm=True)


@pytest.mark.parametrize("hidden", [False, True])
def test_what_follows_the_reasoning_is_scored(suite: Suite, hidden: bool) -> None:
    model, tokenizer = live(hidden)
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    scores = prepared.score()

    assert responses(prepared) == ["two", "three", "loop " * 5 + "loop", ""]
    assert responses(prepared)[:3] == theirs(["q1", "q2", "q3"], hidden)
    assert theirs(["q4"], hidden) != [""]  # lm-eval scores reasoning that was cut off
    assert scores.metrics["tiny_thinking"]["exact_match"].value == 0.5
    assert [item.tokens for item in scores.items] == [6, 2, 6, 6]


def test_tokens_and_cut_off_answers_are_counted(suite: Suite) -> None:
    model, tokenizer = live()
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    prepared.score()

    share = truncated(prepared.generated())
    assert (share.value, share.n) == (0.5, 4)  # q3 and q4
    assert share.stderr == pytest.approx((4 / 3 * 0.25 / 4) ** 0.5)
    # "<think> hm . </think> two", "three", six loops, "a b c <think> hm ."
    assert output_tokens(prepared.generated(), tokenizer).value == (5 + 1 + 6 + 6) / 4


def test_answers_are_kept_whole_where_that_is_asked(suite: Suite) -> None:
    model, tokenizer = live()
    suite = dataclasses.replace(suite, reasoning="keep")
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    assert prepared.score().metrics["tiny_thinking"]["exact_match"].value == 0.25  # q2 alone
    assert responses(prepared)[0] == "<think> hm . </think> two"
    assert [a.is_truncated for [a] in prepared.generated()] == [False, False, True, True]


def test_stop_strings_end_the_answer_and_not_the_reasoning(suite: Suite) -> None:
    model, tokenizer = live()
    settings = Generation(until=(".", "wo"))
    suite = dataclasses.replace(suite, generation_kwargs=settings)
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    prepared.score()
    assert responses(prepared)[0] == "t"
    assert not prepared.generated()[0][0].is_truncated


def test_lm_evals_own_generation_is_read_alike(suite: Suite, monkeypatch) -> None:
    """Where prepared decoding does not fit a model, lm-eval runs it: in batches it reads on."""
    model, tokenizer = live()
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    prepared.score()
    monkeypatch.setattr("evomerge.evaluation.transformers_engine.can_decode", lambda _: False)
    slow = PreparedSuites.of([suite], "search", model, tokenizer)
    slow.score()

    def known(found: PreparedSuites) -> list[object]:
        return [dataclasses.replace(answer, seconds=0.0) for [answer] in found.generated()]

    assert known(slow) == known(prepared)


def test_a_template_may_begin_the_reasoning_or_be_told_not_to(suite: Suite) -> None:
    model, tokenizer = live(chat_template=CHAT)
    suite = dataclasses.replace(suite, apply_chat_template=True)
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    prepared.score()
    assert responses(prepared) == ["two"] * 4
    assert [a.reasoning for [a] in prepared.generated()] == ["hm . </think> "] * 4

    told = dataclasses.replace(suite, chat_template_args={"enable_thinking": False})
    without = PreparedSuites.of([told], "search", model, tokenizer)
    assert without.digest != prepared.digest
    without.score()
    assert responses(without) == ["two"] * 4
    assert [a.text for [a] in without.generated()] == ["two"] * 4
    prompt = without.tasks[0].task.instances[0].args[0]
    lm = HFLM(pretrained=model, tokenizer=tokenizer, chat_template_args={"enable_thinking": False})
    assert prompt == lm.apply_chat_template([{"role": "user", "content": "q1"}])
    assert prompt == "q1 <think> </think> "

    short = dataclasses.replace(suite, generation_kwargs=Generation(max_gen_toks=2))
    cut = PreparedSuites.of([short], "search", model, tokenizer)
    assert cut.score().metrics["tiny_thinking"]["exact_match"].value == 0
    assert truncated(cut.generated()).value == 1
    assert responses(cut) == [""] * 4


def test_scores_of_kept_and_stripped_answers_are_not_confused(suite: Suite) -> None:
    model, tokenizer = live()
    kept = dataclasses.replace(suite, reasoning="keep")
    other = dataclasses.replace(suite, reasoning=("a", "b"))
    found = [PreparedSuites.of([s], "search", model, tokenizer) for s in (suite, kept, other)]
    assert len({one.digest for one in found}) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"reasoning": ("<r>", "</think>")}, "reasoning: expected tags that .* got '<r>'"),
        (
            {"apply_chat_template": True, "chat_template_args": {"enable_thinkin": False}},
            r"chat_template_args.enable_thinkin: expected an argument that the chat template",
        ),
        (
            {"apply_chat_template": True, "chat_template_args": {"messages": []}},
            r"chat_template_args.messages: .* comes from the task",
        ),
        ({"chat_template_args": {"enable_thinking": False}}, "set apply_chat_template: true"),
        (
            {"generation_kwargs": Generation(top_p=0.6)},
            "generation_kwargs.top_p: expected answers that are drawn.*do_sample: true",
        ),
        (
            {"generation_kwargs": Generation(do_sample=True)},
            "generation_kwargs: expected a temperature above 0",
        ),
        ({"repeats": 4}, "repeats: expected answers that are drawn"),
    ],
)
def test_what_cannot_be_done_is_refused(suite: Suite, changes, expected: str) -> None:
    model, tokenizer = live(chat_template=CHAT)
    with pytest.raises(EvaluationError, match=expected):
        PreparedSuites.of([dataclasses.replace(suite, **changes)], "search", model, tokenizer)


def test_choices_are_not_scored_where_reasoning_should_come(tmp_path: Path) -> None:
    model, tokenizer = live(chat_template=CHAT)
    choices = {"output_type": "multiple_choice", "doc_to_choice": ["two", "three"],
               "metric_list": None, "generation_kwargs": None}  # fmt: skip
    suite = thinking_suite(tmp_path, {"q1": "two", "q2": "three"}, **choices)
    suite = dataclasses.replace(suite, apply_chat_template=True)
    with pytest.raises(EvaluationError, match=r"prompts end with <think>.*enable_thinking"):
        PreparedSuites.of([suite], "search", model, tokenizer)
    for changes in ({"chat_template_args": {"enable_thinking": False}}, {"reasoning": "keep"}):
        told = dataclasses.replace(suite, **changes)
        assert PreparedSuites.of([told], "search", model, tokenizer).score().metrics
    tagged = dataclasses.replace(suite, reasoning=("<think>", "</think>"))
    with pytest.raises(EvaluationError, match="reasoning: expected a task that generates text"):
        PreparedSuites.of([tagged], "search", model, tokenizer)


def test_gold_answers_do_not_stand_where_reasoning_should_come(suite: Suite) -> None:
    model, tokenizer = live(chat_template=CHAT)
    suite = dataclasses.replace(suite, apply_chat_template=True)
    smooth = dataclasses.replace(suite, smooth=frozenset(suite.tasks))
    with pytest.raises(EvaluationError, match=r"prompts end with <think>.*enable_thinking"):
        PreparedSuites.of([smooth], "search", model, tokenizer)

    def reason(suite: Suite) -> str | None:
        prepared = PreparedSuites.of([suite], "search", model, tokenizer)
        return prepared.losses([("tiny_thinking", "exact_match")]).reasons[0]

    assert "reasoning comes before right answers" in str(reason(suite))
    told = dataclasses.replace(suite, chat_template_args={"enable_thinking": False})
    assert "reasoning" not in str(reason(told))


@pytest.mark.parametrize("tags", FAMILIES)
def test_tags_are_found_in_the_tokenizer(tags: Tags) -> None:
    assert tags_of(word_tokenizer(["w", *tags.both]), "auto") == tags
    assert tags_of(word_tokenizer(["w", tags.start]), "auto") is None
    assert tags_of(word_tokenizer(["w", *tags.both]), "keep") is None
