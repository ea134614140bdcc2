"""Every mistake is found before a model is loaded, all at once, one line each."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import lm_eval
import pytest
import yaml

from evomerge.errors import EvaluationError
from evomerge.evaluation import Suite
from evomerge.evaluation.scores import SMOOTH_METRICS

from .tiny_tasks import NAMED, metrics_of, write_task

LOADERS = "torch", "lm_eval", "transformers", "datasets"


def faults_of(*suites: Suite) -> list[str]:
    with pytest.raises(EvaluationError) as caught:
        metrics_of(suites)
    return str(caught.value).splitlines()


def only_fault_of(*suites: Suite) -> str:
    (fault,) = faults_of(*suites)
    return fault


def one(folder, name="broken", **changes) -> Suite:
    return Suite("mine", (name,), include_path=folder, splits=NAMED, **changes)


def test_metrics_are_named_per_task_filter_and_group(suite):
    assert metrics_of([suite]) == {
        "tiny_generate": ("exact_match", "gold_bpb"),
        "tiny_filters": ("exact_match,first", "chrf,first", "exact_match", "chrf", "gold_bpb"),
        "tiny_choice": ("acc", "acc_norm", *SMOOTH_METRICS),
        "tiny_fewshot": ("acc", *SMOOTH_METRICS),
        "tiny_group": ("acc",),
        "tiny_likelihood": ("perplexity", "acc", "gold_bpb"),
        "tiny_rolling": ("word_perplexity", "bits_per_byte", "gold_bpb"),
    }


def test_a_tag_stands_for_its_tasks(folder):
    for name in ("tiny_choice", "tiny_generate"):
        write_task(folder, name, tag="tagged")
    names = metrics_of([one(folder, "tagged")])
    assert set(names) == {"tiny_choice", "tiny_generate"}


def test_a_group_without_an_aggregate_has_no_metrics(folder):
    (folder / "bag.yaml").write_text(yaml.safe_dump({"group": "bag", "task": ["tiny_choice"]}))
    assert set(metrics_of([one(folder, "bag")])) == {"tiny_choice"}


def test_an_unknown_task_names_the_nearest(folder, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    fault = only_fault_of(one(folder, "tiny_choise"))
    assert fault.startswith("mine.tasks[0]: unknown task 'tiny_choise'; nearest: tiny_choice")


def test_a_file_of_items_is_no_task_by_itself(folder, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    (folder / "x.jsonl").write_text("{}")
    fault = only_fault_of(one(folder, "x.jsonl"))
    assert "unknown task 'x.jsonl'; a task goes by its name: five lines of YAML make one" in fault


def test_an_unknown_member_of_a_group_is_named(folder, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    group = {"group": "bag", "task": ["tiny_choice", "tiny_generat"]}
    (folder / "bag.yaml").write_text(yaml.safe_dump(group))
    assert "unknown task 'tiny_generat'; nearest: tiny_generate" in only_fault_of(
        one(folder, "bag")
    )


def test_unreadable_yaml_is_named_when_a_task_is_missing(folder, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    (folder / "broken.yaml").write_text("task: [broken\n")
    unknown, unreadable = faults_of(one(folder))
    assert "unknown task 'broken'" in unknown
    assert "broken.yaml" in unreadable
    assert "line 2" in unreadable


def test_an_include_that_does_not_exist_is_named(folder, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    write_task(folder, "broken", include="nowhere.yaml")
    assert "nowhere.yaml" in faults_of(one(folder))[-1]


def test_a_missing_data_file_is_named_with_its_full_path(folder):
    write_task(folder, "broken", dataset_kwargs={"data_files": {"search": "data/nowhere.jsonl"}})
    fault = only_fault_of(one(folder))
    assert f"data file does not exist: {folder / 'data/nowhere.jsonl'}" in fault


def test_a_missing_dataset_split_lists_those_there_are(folder):
    suite = dataclasses.replace(one(folder, "tiny_choice"), splits={"search": "training"})
    fault = only_fault_of(suite)
    assert "task 'tiny_choice', split 'search'" in fault
    assert "no split 'training', only search, test, train, validation" in fault


def test_a_missing_split_of_the_task_itself_is_named(folder):
    write_task(folder, "broken", test_split="tset")
    assert "the dataset has no split 'tset' (test_split)" in only_fault_of(one(folder))


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"search": 0.6, "validation": 0.3, "test": 0.2}, "at most 1, got 0.6 + 0.3 + 0.2"),
        ({"search": 1.5}, "splits.search: expected a dataset split or a fraction in (0"),
        ({"search": 0.0, "test": 0.5}, "fraction in (0, 1], got 0.0"),
        ({"train": 0.5}, "splits: expected some of search, validation, test"),
        ({"search": "test", "test": "test"}, "expected different splits, got 'test' for search"),
        ({"search": 0.5, "test": "test"}, "'test' is what the fractions (search) are cut from"),
    ],
)
def test_splits_that_cannot_be_are_explained(folder, splits, message):
    fault = faults_of(dataclasses.replace(one(folder, "tiny_choice"), splits=splits))[0]
    assert message in fault


def test_fractions_that_leave_a_split_empty_are_explained(folder):
    splits = {"search": 0.99, "validation": 0.01}
    fault = only_fault_of(dataclasses.replace(one(folder, "tiny_choice"), splits=splits))
    assert "split 'validation': no items: 0.01 of 24" in fault


@pytest.mark.parametrize("field", ["doc_to_text", "doc_to_target", "doc_to_choice"])
def test_a_template_that_fails_is_explained(folder, field):
    write_task(folder, "broken", **{"doc_to_choice": "{{choices}}", field: "{{ nothing }}"})
    fault = only_fault_of(one(folder))
    assert "task 'broken'" in fault
    assert "template fails: 'nothing' is undefined" in fault


def test_a_template_that_does_not_parse_is_explained(folder):
    write_task(folder, "broken", doc_to_text="{{ a ")
    assert "a template fails" in only_fault_of(one(folder))


def test_a_template_cannot_reach_python(folder):
    write_task(folder, "broken", doc_to_text="{{ a.__class__.__mro__ }}")
    assert "access to attribute '__class__' of 'str' object is unsafe" in only_fault_of(one(folder))


@pytest.fixture
def coded(folder):
    (folder / "tiny_code.py").write_text("print('ran')\ndef text(doc): return doc['a'] + ' is'\n")
    write_task(folder, "broken")
    path = folder / "broken.yaml"
    lines = [line for line in path.read_text().splitlines() if "doc_to_text" not in line]
    path.write_text("\n".join([*lines, "doc_to_text: !function tiny_code.text"]))
    return folder


def test_code_from_yaml_is_refused_and_does_not_run(coded, capsys):
    fault = only_fault_of(one(coded))
    assert "task 'broken' would run code (!function tiny_code.text in" in fault
    assert "allow_code: true" in fault
    assert capsys.readouterr().out == ""


def test_code_in_an_included_file_is_refused(coded):
    (coded / "broken.yaml").rename(coded / "base")
    (coded / "outer.yaml").write_text("include: base\ntask: outer\n")
    assert "would run code (!function tiny_code.text in" in only_fault_of(one(coded, "outer"))


def test_allowed_code_runs_with_data_paths_relative_to_its_file(coded, capsys):
    assert metrics_of([one(coded, allow_code=True)]) == {"broken": ("exact_match", "gold_bpb")}
    assert "ran" in capsys.readouterr().out


def test_a_metric_that_would_be_downloaded_as_code_is_refused(folder):
    metrics = [{"metric": "exakt_match", "aggregation": "mean", "higher_is_better": True}]
    write_task(folder, "broken", metric_list=metrics)
    assert "'exakt_match' is no metric of lm-eval" in (fault := only_fault_of(one(folder)))
    assert "nearest: exact_match" in fault
    metrics[0] = {"metric": "exact_match", "hf_evaluate": True, "aggregation": "mean"}
    write_task(folder, "broken", metric_list=metrics)
    assert "exact_match (hf_evaluate)" in only_fault_of(one(folder))


def test_pickled_data_is_refused(folder):
    write_task(folder, "broken", dataset_path="pandas")
    assert "may unpickle code" in only_fault_of(one(folder))


def test_the_faults_of_all_suites_are_reported_together(folder):
    write_task(folder, "broken", doc_to_text="{{ nothing }}")
    write_task(folder, "worse", dataset_kwargs={"data_files": "nowhere.jsonl"})
    suites = [
        Suite("a", (), limit=0),
        Suite("b", ("tiny_choice", "worse"), include_path=folder, splits=NAMED),
        Suite("c", ("tiny_choice", "broken"), include_path=folder, splits=NAMED),
        Suite("d", ("tiny_choice",), include_path=folder / "nowhere"),
    ]
    faults = faults_of(*suites)
    assert [fault.partition(": ")[0] for fault in faults] == [
        "a.tasks", "a.limit", "b.tasks[1]", "c.tasks[1]", "d.include_path", "c.tasks[0]",
    ]  # fmt: skip


def test_faults_of_every_kind_in_one_suite_are_reported_together(folder, monkeypatch):
    monkeypatch.setattr("evomerge.evaluation.index.builtin_index", dict)
    write_task(folder, "no_data", dataset_kwargs={"data_files": "nowhere.jsonl"})
    write_task(folder, "no_split", test_split="tset")
    write_task(folder, "no_field", doc_to_text="{{ nothing }}")
    names = ("no_data", "no_split", "unknown", "tiny_choice", "no_field")
    faults = faults_of(Suite("mine", names, include_path=folder, splits=NAMED))
    for name in set(names) - {"tiny_choice"}:
        assert any(f"task '{name}'" in fault for fault in faults)
    assert not any("tiny_choice" in fault for fault in faults)


def filters(function, **settings):
    return [{"name": "mine", "filter": [{"function": function, **settings}]}]


@pytest.mark.parametrize(
    ("filter_list", "expected"),
    [
        (filters("regx", regex_pattern="a"), "no filter 'regx' (filter_list), nearest: regex"),
        (filters("regex", regex_patern="a"), "its filters fail (filter_list): TypeError"),
        (filters("regex", regex_pattern="(a"), "missing ), unterminated subpattern"),
    ],
)
def test_filters_that_cannot_run_are_explained(folder, filter_list, expected):
    write_task(folder, "broken", filter_list=filter_list)
    assert expected in only_fault_of(one(folder))


def test_an_unknown_aggregation_is_explained(folder):
    metrics = [{"metric": "exact_match", "aggregation": "maen", "higher_is_better": True}]
    write_task(folder, "broken", metric_list=metrics)
    expected = "has a metric 'exact_match' (metric_list) whose aggregation lm-eval does not know"
    assert expected in only_fault_of(one(folder))


@pytest.mark.parametrize("columns", ["image", ["image"]])
def test_images_from_no_column_are_refused(folder, columns):
    pytest.importorskip("PIL")
    write_task(folder, "broken", doc_to_image=columns)
    assert "takes images from 'image' (doc_to_image), expected" in only_fault_of(one(folder))


def test_sound_is_refused_and_what_scores_it_is_named(folder):
    write_task(folder, "broken", doc_to_audio="sound")
    assert "export a trial, and score its folder with lm_eval" in only_fault_of(one(folder))


def test_several_broken_tasks_of_a_suite_are_all_named(folder):
    for name in ("broken", "worse"):
        write_task(folder, name, doc_to_text="{{ nothing }}")
    suite = dataclasses.replace(one(folder), tasks=("broken", "tiny_choice", "worse"))
    assert [fault.split("'")[1] for fault in faults_of(suite)] == ["broken", "worse"]


def test_importing_the_package_loads_no_heavy_library():
    code = f"import sys, evomerge.evaluation; print([m for m in {LOADERS} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_metric_that_does_not_fit_the_kind_of_task_is_explained(folder):
    metrics = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    write_task(folder, "broken", output_type="loglikelihood_rolling", metric_list=metrics)
    assert "task 'broken' yields no metric" in only_fault_of(one(folder))


def test_data_that_does_not_parse_is_explained(folder):
    (folder / "data" / "test.jsonl").write_text('{"a": 1}\n{"a": \n')
    assert "JSON" in only_fault_of(one(folder, "tiny_choice"))


def test_a_task_given_twice_through_a_group_is_refused(folder):
    suite = dataclasses.replace(one(folder), tasks=("tiny_group", "tiny_choice"))
    assert "Duplicate task 'tiny_choice'" in only_fault_of(suite)


def test_code_that_lm_eval_ships_is_allowed(folder):
    """A user's file may include a built-in one, functions and all."""
    shipped = Path(lm_eval.__file__).parent / "tasks" / "hellaswag" / "hellaswag.yaml"
    row = {"ind": 1, "activity_label": "One", "ctx_a": "one", "ctx_b": "two", "label": "0"}
    text = json.dumps(row | {"endings": ["three", "four", "five", "six"]})
    (folder / "data" / "swag.jsonl").write_text(text)
    files = {"train": "data/swag.jsonl", "validation": "data/swag.jsonl"}
    config = {"task": "swag", "include": str(shipped), "dataset_path": "json", "dataset_name": None}
    (folder / "swag.yaml").write_text(
        yaml.safe_dump(config | {"dataset_kwargs": {"data_files": files}})
    )
    suite = dataclasses.replace(one(folder, "swag"), splits={"search": 1.0})
    assert metrics_of([suite]) == {"swag": ("acc", "acc_norm", *SMOOTH_METRICS)}
