"""Everything that touches lm-eval: its task index, its language model, its standard errors.

No other file imports ``lm_eval``. One private function of it is used: ``load_yaml``, which reads a
task file and imports the functions it names. ``utils.apply_template`` is replaced while we work.
"""

from __future__ import annotations

import copy
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import jinja2
import lm_eval.tasks
import lm_eval.utils
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import acc_all, acc_all_stderr, mean, mean_stderr
from lm_eval.api.registry import METRIC_REGISTRY
from lm_eval.api.task import Task
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "BUILTIN_TASKS",
    "FEWSHOT_SEED",
    "Group",
    "Instance",
    "LanguageModel",
    "Task",
    "TaskManager",
    "builtin_index",
    "known_metrics",
    "load_config",
    "mean",
    "safe_templates",
    "standard_error",
]

BUILTIN_TASKS = Path(lm_eval.tasks.__file__).parent
FEWSHOT_SEED = 1234  # what simple_evaluate seeds the choice of examples with


@functools.cache
def builtin_index() -> dict[str, object]:
    """Index lm-eval's own tasks by name: 6-9 s, once per process. Entries must not be changed."""
    return dict(TaskManager().task_index)


def known_metrics() -> frozenset[str]:
    """Name the metrics that are part of lm-eval; others are downloaded as code."""
    return frozenset(METRIC_REGISTRY)


def load_config(path: Path) -> dict[str, object]:
    """Read a task file with its includes merged and its functions imported (runs their code)."""
    config: dict[str, object] = load_yaml(path, resolve_func=True)
    return config


def standard_error(aggregation: Callable[..., float], values: Sequence[float]) -> float:
    """Compute the closed-form standard error of a metric; NaN where there is none.

    Args:
        aggregation: The metric's aggregation function.
        values: Per-item values.
    """
    closed_form = {mean: mean_stderr, acc_all: acc_all_stderr}.get(aggregation)
    if closed_form is None or len(values) < 2:
        return math.nan
    return float(closed_form(values))


@contextmanager
def safe_templates() -> Iterator[None]:
    """Render task templates in a sandbox while the context is open.

    lm-eval renders them in an ordinary environment, where a template can run any Python, and
    compiles a template anew for every item.
    """
    original = lm_eval.utils.apply_template
    lm_eval.utils.apply_template = _apply_template
    try:
        yield
    finally:
        lm_eval.utils.apply_template = original


def _apply_template(template: str, doc: Mapping[str, object]) -> str:
    return _compiled(template).render(**doc)


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(lm_eval.utils.env.filters)
    return environment.from_string(template)


class LanguageModel:
    """A live model that answers prepared requests; its parameters may change between calls.

    Args:
        model: Used as it is at each call; put into evaluation mode.
        tokenizer: Copied, because lm-eval may give it a padding token.
        batch_size: Sequences per forward pass.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ) -> None:
        from lm_eval.models.huggingface import HFLM  # 3 s to import; only workers need it

        self.lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size)
        # The same prompts come again for every candidate: tokenise each text once.
        self.lm.tok_encode = functools.cache(self.lm.tok_encode)

    def longest_answer(self, generation_kwargs: Mapping[str, object]) -> int:
        """Tell how many tokens a request may generate, by any of the names for that setting."""
        return int(normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks)["max_gen_toks"])

    def answer(self, instances: Sequence[Instance]) -> None:
        """Answer every request, replacing all earlier responses."""
        requests: dict[str, list[Instance]] = defaultdict(list)
        for instance in instances:
            instance.resps, instance.filtered_resps = [], {}
            requests[instance.request_type] += [instance] * instance.repeats
        for request_type, repeated in requests.items():
            responses = getattr(self.lm, request_type)(repeated, disable_tqdm=True)
            for instance, response in zip(repeated, responses, strict=True):
                instance.resps.append(response)
