"""The numbers are lm-eval's own, now and after the model has changed."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path

import lm_eval
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.errors import EvaluationError
from evomerge.evaluation import PreparedSuites, Scores, Suite, TaskCatalogue
from evomerge.evaluation.gates import Gates
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.transformers_engine import TransformersEngine

from .tiny_tasks import N_ROWS, NAMED, metrics_of, write_task


class Reference:
    """``lm_eval.simple_evaluate`` on a copy of the tasks with its split and paths written out."""

    def __init__(self, suite: Suite, folder: Path, split: str) -> None:
        self.suite, self.folder = suite, folder
        folder.mkdir()
        assert suite.include_path is not None
        for path in suite.include_path.glob("*.yaml"):
            config = yaml.safe_load(path.read_text())
            if "dataset_kwargs" in config:
                files = config["dataset_kwargs"]["data_files"]
                absolute = {k: str(suite.include_path / v) for k, v in files.items()}
                config["dataset_kwargs"] = {"data_files": absolute}
                if isinstance(suite.splits[split], str):
                    config["test_split"] = suite.splits[split]
            (folder / path.name).write_text(yaml.safe_dump(config))

    def score(
        self,
        model: LlamaForCausalLM,
        tokenizer: PreTrainedTokenizerFast,
        samples: Mapping[str, list[int]] | None = None,
    ) -> dict[str, dict[str, object]]:
        suite = self.suite
        results = lm_eval.simple_evaluate(
            HFLM(
                pretrained=model,
                tokenizer=tokenizer,
                batch_size=64 if suite.batch_size == "auto" else suite.batch_size,
            ),
            tasks=list(suite.tasks),
            task_manager=TaskManager(include_path=str(self.folder), include_defaults=False),
            samples=dict(samples) if samples else None,
            num_fewshot=suite.num_fewshot,
            apply_chat_template=suite.apply_chat_template,
            fewshot_as_multiturn=suite.fewshot_as_multiturn,
            system_instruction=suite.system_instruction,
            bootstrap_iters=10,
        )
        self.samples = results["samples"]
        return results["results"]


@pytest.fixture(autouse=True)
def _no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the reference from starting some for its bootstrap and its report on the machine."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)


def rows_of(scores: Scores) -> dict[str, list[int]]:
    rows: dict[str, set[int]] = {}
    for item in scores.items:
        rows.setdefault(item.task, set()).add(item.item)
    return {task: sorted(found) for task, found in rows.items()}


def assert_equal(scores: Scores, results: dict[str, dict[str, object]]) -> None:
    """Every number equal, none missing on either side."""
    for task, row in results.items():
        expected = {k.removesuffix(",none"): v for k, v in row.items() if "," in k}
        values = {k: v for k, v in expected.items() if "_stderr" not in k}
        assert {k: v.value for k, v in scores.metrics.get(task, {}).items()} == values
        for metric, value in scores.metrics.get(task, {}).items():
            name, _, filter_name = metric.partition(",")
            stderr = row[f"{name}_stderr,{filter_name or 'none'}"]
            assert value.stderr == stderr or math.isnan(value.stderr)
    assert set(scores.metrics) <= set(results)


@pytest.mark.parametrize("split", ["search", "test"])
def test_every_kind_of_task_scores_as_simple_evaluate(suite, split, model, tokenizer, tmp_path):
    scores = PreparedSuites.of([suite], split, model, tokenizer).score()
    reference = Reference(suite, tmp_path / "reference", split)

    assert_equal(scores, reference.score(model, tokenizer))

    assert set(scores.metrics) == {
        "tiny_choice", "tiny_fewshot", "tiny_filters", "tiny_generate", "tiny_group",
        "tiny_likelihood", "tiny_rolling",
    }  # fmt: skip
    assert 0 < scores.metrics["tiny_group"]["acc"].stderr < 1


def test_items_are_the_samples_of_simple_evaluate(suite, model, tokenizer, tmp_path):
    scores = PreparedSuites.of([suite], "search", model, tokenizer).score()
    reference = Reference(suite, tmp_path / "reference", "search")
    reference.score(model, tokenizer)

    expected = {
        (task, sample["doc_id"], f"{name},{sample['filter']}".removesuffix(",none"), sample[name])
        for task, samples in reference.samples.items()
        for sample in samples
        for name in sample["metrics"]
        if isinstance(sample[name], int | float)
    }
    assert {(i.task, i.item, i.metric, i.score) for i in scores.items} == expected
    assert len(scores.items) == len(expected)


@pytest.mark.parametrize("split", ["search", "validation", "test"])
def test_a_fraction_scores_as_simple_evaluate_on_the_same_items(
    suite, split, model, tokenizer, tmp_path
):
    names = ("tiny_choice", "tiny_fewshot", "tiny_generate")
    suite = dataclasses.replace(
        suite, tasks=names, splits={"search": 0.5, "validation": 0.25, "test": 0.2}, limit=9
    )
    scores = PreparedSuites.of([suite], split, model, tokenizer).score()
    reference = Reference(suite, tmp_path / "reference", split)

    assert_equal(scores, reference.score(model, tokenizer, rows_of(scores)))
    assert all(len(rows) == {"search": 9}.get(split, 5 + (split == "validation"))
               for rows in rows_of(scores).values())  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"apply_chat_template": True, "system_instruction": "what is plus"},
        {"apply_chat_template": True, "fewshot_as_multiturn": True},
        {"num_fewshot": 1},
    ],
    ids=["system", "multiturn", "one_shot"],
)
def test_prompt_settings_score_as_simple_evaluate(
    changes, suite, folder, model, tokenizer, tmp_path
):
    tasks = ("tiny_likelihood", "tiny_fewshot", "tiny_generate")
    for name in tasks:
        write_task(folder, name, fewshot_split="train")
    plain = dataclasses.replace(suite, tasks=tasks)
    changed = dataclasses.replace(plain, **changes)
    scores = PreparedSuites.of([changed], "search", model, tokenizer).score()

    reference = Reference(changed, tmp_path / "reference", "search")
    assert_equal(scores, reference.score(model, tokenizer))
    assert scores.metrics != PreparedSuites.of([plain], "search", model, tokenizer).score().metrics


@pytest.mark.parametrize(
    ("templates", "found"), [(None, "none"), ({"rag": "x", "tool_use": "y"}, "only rag, tool_use")]
)
def test_a_missing_chat_template_is_named_once_with_model_and_key(
    suite, model, tokenizer, templates, found
):
    changed = dataclasses.replace(suite, apply_chat_template=True)
    bare = copy.deepcopy(tokenizer)
    bare.chat_template, bare.name_or_path = templates, "owner/base"
    fault = (
        f"{suite.name}.apply_chat_template: expected a chat template in the tokenizer "
        f"of owner/base, found {found}; "
    )
    for prepare in (
        lambda: PreparedSuites.of([changed], "search", model, bare),
        lambda: TaskCatalogue.of([changed], LanguageModel(model, bare, 1)),  # what check does
    ):
        with pytest.raises(EvaluationError) as error:
            prepare()
        (line,) = str(error.value).splitlines()
        assert line.startswith(fault)
    PreparedSuites.of([suite], "search", model, bare)  # where none is needed, none is missing


def test_draws_of_lm_eval_score_as_simple_evaluate_and_repeat(
    empty_folder, model, tokenizer, tmp_path
):
    sampled = {"until": ["."], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    sampled["typical_p"] = 0.99  # which draws of our own do not know
    chrf = [{"metric": "chrf", "aggregation": "chrf", "higher_is_better": True}]
    write_task(empty_folder, "sampled", generation_kwargs=sampled, metric_list=chrf)
    suite = Suite("one", ("sampled",), include_path=empty_folder, splits=NAMED, batch_size=8)
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)

    scores = prepared.score()
    torch.rand(3)  # the state of the global generator is of no consequence
    assert prepared.score().metrics == scores.metrics
    assert_equal(scores, Reference(suite, tmp_path / "r", "search").score(model, tokenizer))


def test_scoring_leaves_the_global_generators_alone(suite, model, tokenizer):
    suite = dataclasses.replace(suite, tasks=("tiny_choice",))
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    PreparedSuites.of([suite], "search", model, tokenizer).score()
    assert torch.equal(torch.rand(2), expected)


def test_parameters_changed_in_place_change_the_scores_and_back(suite, model, tokenizer, tmp_path):
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    first = prepared.score()
    original = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.flip(0))
    changed = prepared.score()
    reference = Reference(suite, tmp_path / "reference", "search")
    assert_equal(changed, reference.score(model, tokenizer))
    assert changed.metrics["tiny_likelihood"] != first.metrics["tiny_likelihood"]
    assert changed.metrics["tiny_filters"] != first.metrics["tiny_filters"]

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(original[name])
    again = prepared.score()
    assert (again.metrics, again.items) == (first.metrics, first.items)


def test_suites_together_score_as_each_alone(suite, folder, model, tokenizer):
    sampled = {"until": ["."], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    for name in ("tiny_filters", "tiny_generate"):
        write_task(folder, name, generation_kwargs=sampled)
    names = ("tiny_choice", "tiny_filters", "tiny_generate", "tiny_likelihood")
    parts = [dataclasses.replace(suite, name=name, tasks=(name,)) for name in names]
    together = PreparedSuites.of(parts, "search", model, tokenizer).score()
    for part in parts:
        alone = PreparedSuites.of([part], "search", model, tokenizer).score()
        assert together.metrics[part.name] == alone.metrics[part.name]


def test_a_score_has_the_metrics_that_were_named(suite, model, tokenizer):
    named = metrics_of([suite])
    asked = dataclasses.replace(suite, smooth=frozenset(named))
    scores = PreparedSuites.of([asked], "validation", model, tokenizer).score()
    assert {name: tuple(table) for name, table in scores.metrics.items()} == named


def test_a_subset_keeps_the_row_numbers_of_its_items(suite, model, tokenizer):
    suite = dataclasses.replace(suite, tasks=("tiny_choice",))
    whole = PreparedSuites.of([suite], "search", model, tokenizer).score()
    limited = dataclasses.replace(suite, limit=7)
    part = PreparedSuites.of([limited], "search", model, tokenizer).score()
    assert set(part.items) < set(whole.items)
    assert len(part.items) == 2 * 7
    assert len(whole.items) == 2 * N_ROWS


def test_the_tokenizer_of_the_caller_is_left_alone(suite, model, tokenizer):
    tokenizer.pad_token = None
    PreparedSuites.of(
        [dataclasses.replace(suite, tasks=("tiny_choice",))], "test", model, tokenizer
    )
    assert tokenizer.pad_token is None
    tokenizer.pad_token = "<pad>"


def test_nothing_reaches_the_terminal(suite, model, tokenizer, capfd):
    metrics_of([suite])
    PreparedSuites.of([suite], "search", model, tokenizer).score()
    assert capfd.readouterr() == ("", "")


def test_a_split_the_suite_does_not_declare_is_refused(suite, model, tokenizer):
    suite = dataclasses.replace(suite, splits={"search": "search"})
    with pytest.raises(EvaluationError, match="no split 'test'"):
        PreparedSuites.of([suite], "test", model, tokenizer)


def test_the_same_task_in_two_suites_is_refused(suite, model, tokenizer):
    with pytest.raises(EvaluationError, match="'tiny_choice' is in more than one evaluator"):
        PreparedSuites.of([suite, dataclasses.replace(suite, name="b")], "test", model, tokenizer)


def test_answers_longer_than_the_context_are_refused(suite, folder, model, tokenizer):
    write_task(folder, "tiny_generate", generation_kwargs={"until": ["."]})  # lm-eval's 256 tokens
    suite = dataclasses.replace(suite, tasks=("tiny_generate",))
    with pytest.raises(EvaluationError, match=r"take 256 tokens, but the context .* is 96"):
        PreparedSuites.of([suite], "test", model, tokenizer)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"doc_to_text": ""}, "24 of 24 prompts have no token that could be answered"),
        ({"doc_to_text": "{{a if a == b else ''}}"}, "of 24 prompts have no token"),
        ({"generation_kwargs": {"until": ["."], "max_gen_toks": 0}}, "answers may take 0 tokens;"),
    ],
)
def test_what_generate_makes_nothing_of_is_refused(changes, said, suite, folder, model, tokenizer):
    write_task(folder, "tiny_generate", **changes)
    suite = dataclasses.replace(suite, tasks=("tiny_generate",))
    with pytest.raises(EvaluationError, match=said):
        PreparedSuites.of([suite], "test", model, tokenizer)


@pytest.fixture
def long_choices(folder: Path) -> Path:
    """Choices of several tokens after prompts of different lengths, examples included."""
    for name in ("tiny_choice", "tiny_fewshot"):
        write_task(folder, name, doc_to_choice="{{[c + ' plus ' + a, b, a + ' ' + b + ' is', b]}}")
    return folder


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_scores_as_simple_evaluate_up_to_rounding(
    long_choices, suite, model, tokenizer, tmp_path, dtype
):
    suite, model = dataclasses.replace(suite, batch_size="auto"), model.to(dtype)
    prepared = PreparedSuites.of([suite], "search", model, tokenizer)
    scores = prepared.score()
    results = Reference(suite, tmp_path / "reference", "search").score(model, tokenizer)
    for task, table in scores.metrics.items():
        for metric, value in table.items():
            name, _, filter_name = metric.partition(",")
            expected = results[task][f"{name},{filter_name or 'none'}"]
            is_float = metric in ("perplexity", "word_perplexity", "bits_per_byte")
            assert value.value == (pytest.approx(expected, rel=1e-5) if is_float else expected)


def test_auto_runs_each_context_once(long_choices, suite, model, tokenizer):
    suite = dataclasses.replace(suite, tasks=("tiny_fewshot",))

    def positions(batch_size: int | str) -> int:
        counted = []
        prepared = PreparedSuites.of(
            [dataclasses.replace(suite, batch_size=batch_size)], "search", model, tokenizer
        )
        handle = model.register_forward_pre_hook(lambda _, given: counted.append(given[0].numel()))
        prepared.score()
        handle.remove()
        return sum(counted)

    assert positions("auto") < 0.5 * positions(8)


def test_greedy_answers_leave_the_batch_when_they_end(suite, folder, model, tokenizer):
    """Were they answered by lm-eval, every sequence would go on to the end of the longest."""
    write_task(folder, "tiny_generate", generation_kwargs={"until": ["one"], "max_gen_toks": 30})
    prepared = PreparedSuites.of(
        [dataclasses.replace(suite, tasks=("tiny_generate",))], "search", model, tokenizer
    )
    rows = []
    handle = model.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    tokens = sorted({(item.item, item.tokens) for item in prepared.score().items})
    handle.remove()
    assert sum(rows) == sum(n for _, n in tokens)
    assert len({n for _, n in tokens}) > 1


@pytest.mark.parametrize("task", ["tiny_choice", "tiny_generate"])
def test_a_prompt_longer_than_the_context_is_refused(task, suite, folder, model, tokenizer):
    write_task(folder, task, doc_to_text="{{(a + ' ') * (100 if a == b else 1)}} is")
    with pytest.raises(EvaluationError, match=r"\d+ of \d+ prompts take up to 10\d tokens"):
        PreparedSuites.of([dataclasses.replace(suite, tasks=(task,))], "test", model, tokenizer)


def test_a_choice_without_a_token_is_refused(suite, folder, model, tokenizer):
    write_task(folder, "tiny_choice", doc_to_choice="{{[' ', a]}}", target_delimiter="")
    suite = dataclasses.replace(suite, tasks=("tiny_choice",))
    with pytest.raises(EvaluationError, match="a continuation of at least one token, got ' '"):
        PreparedSuites.of([suite], "test", model, tokenizer)


def test_nothing_is_kept_of_what_candidates_say(suite, folder, model, tokenizer):
    """Sampled answers go through lm-eval; they are counted in tokens, and looked at by gates."""
    sampled = {"until": ["."], "max_gen_toks": 6, "do_sample": True, "temperature": 1.0}
    write_task(folder, "tiny_generate", generation_kwargs=sampled)
    engine = TransformersEngine(model, tokenizer, "auto")
    suite = dataclasses.replace(suite, tasks=("tiny_generate",))
    prepared = PreparedSuites.of([suite], "search", model, tokenizer, make_engine=lambda *_: engine)
    (probe,) = prepared.probes(Gates(answer_tokens=2, runaway=0.5))
    kept: list[int] = []
    said: set[object] = set()
    for _ in range(3):
        prepared.score()
        said |= {request.resps[0] for request in prepared.tasks[0].task.instances}
        probe.measure()
        kept.append(engine.language_model.lm.tok_encode.cache_info().currsize)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.flip(0).roll(1))
    assert len(said) > N_ROWS
    assert len(set(kept)) == 1


def test_batches_do_not_depend_on_memory_that_happens_to_be_free(model, tokenizer, monkeypatch):
    """Workers that share a GPU, one that comes later, and an export round alike."""

    def arithmetic(free: int, total: int) -> tuple[object, ...]:
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, total))
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "a GPU")
        engine = TransformersEngine(model, tokenizer, "auto")
        engine.language_model.lm._device = torch.device("cuda")
        return engine.arithmetic

    small = 1000 * 16 * len(tokenizer) * 4
    assert arithmetic(small, small) == arithmetic(small // 7, small) == ("a GPU", 1000, True)
    assert arithmetic(small, 2 * small)[:2] == ("a GPU", 2000)


def test_what_decides_over_the_last_digits_names_the_scores(suite, model, tokenizer, monkeypatch):
    suite = dataclasses.replace(suite, tasks=("tiny_choice",), batch_size="auto")

    def digest() -> str | None:
        return PreparedSuites.of([suite], "search", model, tokenizer).digest

    before = digest()
    assert digest() == before
    monkeypatch.setattr("evomerge.evaluation.batches._TOKENS_PER_BATCH", 64)
    other_batches = digest()
    monkeypatch.setattr("evomerge.evaluation.transformers_engine.device_name", lambda _: "a GPU")
    assert len({before, other_batches, digest()}) == 3
