"""While lm-eval works for us it is silent, and afterwards everything is as before."""

from __future__ import annotations

import logging
import random
import warnings

import lm_eval.utils
import numpy as np
import pytest
import torch
import tqdm

from evomerge.evaluation.hygiene import clean_harness


def work() -> None:
    logging.getLogger("lm_eval.api.task").error("noise")
    warnings.warn("noise", stacklevel=2)
    list(tqdm.tqdm(range(3)))


def test_log_lines_warnings_and_bars_are_silent_only_inside(capfd):
    with clean_harness():
        work()
    assert capfd.readouterr() == ("", "")
    with pytest.warns(UserWarning, match="noise"):
        work()
    assert "100%" in capfd.readouterr().err


def test_everything_is_put_back_after_an_error():
    before = (
        logging.getLogger("lm_eval").level,
        tqdm.tqdm.__init__,
        lm_eval.utils.apply_template,
        warnings.filters[:],
    )
    with pytest.raises(ZeroDivisionError), clean_harness():
        raise ZeroDivisionError
    after = (
        logging.getLogger("lm_eval").level,
        tqdm.tqdm.__init__,
        lm_eval.utils.apply_template,
        warnings.filters[:],
    )
    assert after == before


def test_global_generators_are_fixed_inside_and_untouched_outside():
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(()))

    with clean_harness():
        first = draw()
    state = random.getstate()
    outside = draw()
    random.setstate(state)
    with clean_harness():
        assert draw() == first
    assert random.random() == outside[0]


def test_templates_render_as_lm_eval_renders_them():
    template, doc = "{{ a | regex_replace('x', 'y') }}: {{ b[0] }}{{ b.append(3) }}\n", {"a": "xx"}
    expected = lm_eval.utils.apply_template(template, doc | {"b": [1]})
    with clean_harness():
        assert lm_eval.utils.apply_template(template, doc | {"b": [1]}) == expected


def test_a_gpu_that_the_process_has_not_touched_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: pytest.fail("took memory"))
    before = torch.random.get_rng_state()
    with clean_harness():
        torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
