"""Each fails where an upgrade of a library takes away a part that is not public."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import ray
import ray._private.worker
import torch
from lm_eval.api.group import Group
from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from transformers import GPT2Config, GPT2LMHeadModel

import evomerge
from evomerge.models import transformers_internals
from evomerge.samplers import cmaes_internals
from evomerge.samplers.cmaes_internals import CatCMAwM, COMOCatCMAwM

PRIVATE = {
    r"\._(?:get_dtype_plan|keys_to_ignore_\w+|tied_weights_keys)\b": "transformers_internals.py",
    r"\._(?:eigen_decomposition|mean|A|sigma|v_raw|kernel_id|incumbent_id)\b": "cmaes_internals.py",
    r"\._(?:fewshot_docs|instances|children|config|yaml_loader)\b": "harness.py",
    r"\._encode_pair\b": "language_model.py",
    r"ray\._private": "starting.py",
}


@pytest.mark.parametrize(("pattern", "file"), PRIVATE.items())
def test_one_file_uses_what_is_not_public(pattern: str, file: str) -> None:
    found = re.compile(rf"(?<!\bself)(?<!\bcls){pattern}")
    package = Path(evomerge.__file__).parent
    users = {f.name for f in package.rglob("*.py") if found.search(f.read_text("utf-8"))}
    assert users == {file}


def _tiny_gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=8, vocab_size=16))


def test_tied_weights_are_declared() -> None:
    ties = transformers_internals.tied_patterns(_tiny_gpt2())
    assert ties == {"lm_head.weight": "transformer.wte.weight"}


def test_dtypes_of_what_stays_in_float32() -> None:
    model = _tiny_gpt2()
    model._keep_in_fp32_modules_strict = {"ln_f"}
    plan = transformers_internals.dtype_plan(model, torch.bfloat16)
    assert [(("ln_f" in name), dtype) for name, dtype in plan.items()] == [(True, torch.float32)]


def test_what_a_checkpoint_may_hold_or_lack() -> None:
    class Lenient(GPT2LMHeadModel):
        _keys_to_ignore_on_load_unexpected = ("unused",)
        _keys_to_ignore_on_load_missing = ("optional",)

    model = Lenient(_tiny_gpt2().config)
    assert "unused" in transformers_internals.may_be_unused(model)
    assert "optional" in transformers_internals.may_be_missing(model)


def test_distances_from_a_mean_are_in_standard_deviations() -> None:
    spreads = np.array([0.1, 0.2])
    search = CatCMAwM(x_space=[[0.0, 1.0]] * 2, mean=np.array([0.5, 0.25]), cov=np.diag(spreads**2))
    assert cmaes_internals.centre_of(search) == pytest.approx([0.5, 0.25])
    assert cmaes_internals.distance(search, np.array([0.3, 0.8])) == pytest.approx(5.0)


def test_what_was_drawn_for_a_solution() -> None:
    search = CatCMAwM(z_space=[[0, 1, 2]] * 3, population_size=4)
    solution = search.ask()
    drawn = cmaes_internals.drawn_numbers(solution)
    assert drawn is not None
    assert drawn.shape == (3,)
    assert set(drawn) - {0.0, 1.0, 2.0}, "expected what was drawn before it was rounded"


def test_kernels_draw_or_are_centres() -> None:
    kernels = [CatCMAwM(x_space=[[0.0, 1.0]] * 2, population_size=6) for _ in range(2)]
    como = COMOCatCMAwM(kernels=kernels, x_space=[[0.0, 1.0]])
    found = [cmaes_internals.origin_of(solution) for solution in como.ask_iter()]
    assert len(found) == 7  # the draws of one kernel, and the centre of the other
    assert all((kernel is None) != (centre is None) for kernel, centre in found)


def test_tasks_and_groups_of_lm_eval_keep_their_parts() -> None:
    task = inspect.getsource(ConfigurableTask) + inspect.getsource(ConfigurableTask.__mro__[1])
    for part in ("_config", "_instances", "_fewshot_docs", "_training_docs"):
        assert re.search(rf"self\.{part}\b", task), part
    assert "_children" in inspect.getsource(Group)
    assert callable(TemplateLM._encode_pair)


def test_ray_reports_dead_workers_where_it_is_silenced() -> None:
    assert callable(ray._private.worker.print_to_stdstream)
