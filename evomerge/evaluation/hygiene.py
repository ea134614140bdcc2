"""Keep lm-eval silent, reproducible and harmless while it works for us."""

from __future__ import annotations

import gc
import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import tqdm

from evomerge.evaluation.harness import safe_templates

__all__ = ["clean_harness", "light_collections"]

_SILENT = logging.CRITICAL + 1
_CHATTY = ("datasets", "evaluate", "lm_eval", "transformers")


@contextmanager
def clean_harness() -> Iterator[None]:
    """Silence lm-eval, fix its seeds and sandbox its templates while the context is open.

    It changes the whole process, so only one thread may evaluate at a time.
    """
    with _quiet(), _fixed_seeds(), safe_templates():
        yield


@contextmanager
def light_collections() -> Iterator[None]:
    """Let garbage collections pass over whatever is there when the context is opened.

    lm-eval collects after every batch with images; to look at all modules each time takes longer
    than a small model does.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence log lines, warnings and progress bars of the evaluation libraries.

    Errors still raise. Everything is put back on leaving.
    """
    with ExitStack() as stack:
        for logger in map(logging.getLogger, _CHATTY):
            if logger.level != _SILENT:  # setting it makes all loggers forget what they know
                stack.callback(logger.setLevel, logger.level)
                logger.setLevel(_SILENT)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        # lm-eval offers no switch for the bars of its prompt builder and of its rolling windows.
        stack.callback(setattr, tqdm.tqdm, "__init__", tqdm.tqdm.__init__)
        tqdm.tqdm.__init__ = _init_disabled
        yield


_init_bar = tqdm.tqdm.__init__


def _init_disabled(bar: tqdm.tqdm, *args: object, **options: object) -> None:
    _init_bar(bar, *args, **{**options, "disable": True})


@contextmanager
def _fixed_seeds() -> Iterator[None]:
    """Seed the global generators as ``lm_eval.simple_evaluate`` does, and restore them after.

    Task code and sampled generation draw from them; nothing of ours does. Generators of GPUs that
    this process has not touched are left alone: looking at them would take memory there.
    """
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=gpus):
        random.seed(0)
        np.random.seed(1234)
        torch.manual_seed(1234)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
