"""Everything that touches lm-eval: its task index, its language model, its standard errors.

No other file imports ``lm_eval``, and none uses a part of it that is not public: ``load_yaml``,
which reads a task file and imports the functions it names; what tasks and groups keep; how a
context and its continuation are tokenised. ``utils.apply_template`` is replaced while we work.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import jinja2
import lm_eval.tasks
import lm_eval.utils
import torch
from jinja2.sandbox import SandboxedEnvironment
from lm_eval.api.group import Group
from lm_eval.api.instance import Instance
from lm_eval.api.metrics import acc_all, acc_all_stderr, mean, mean_stderr
from lm_eval.api.registry import FILTER_REGISTRY, METRIC_REGISTRY
from lm_eval.api.samplers import ContextSampler as Sampler
from lm_eval.api.task import ConfigurableTask, Task
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml
from typing_extensions import Self

from evomerge.errors import EvaluationError
from evomerge.evaluation.bounded import bounded

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "BUILTIN_TASKS",
    "FEWSHOT_SEED",
    "Group",
    "Instance",
    "LanguageModel",
    "Sampler",
    "Task",
    "TaskManager",
    "builtin_index",
    "end_tokens",
    "known_filters",
    "known_metrics",
    "load_config",
    "mean",
    "safe_templates",
    "standard_error",
    "task_names",
    "with_examples",
    "with_requests",
    "without_data",
]

BUILTIN_TASKS = Path(lm_eval.tasks.__file__).resolve().parent
_AS_BY_DEFAULT: Mapping[str, Any] = MappingProxyType({})
FEWSHOT_SEED = 1234  # what simple_evaluate seeds the choice of examples with


@functools.cache
def builtin_index() -> dict[str, object]:
    """Index lm-eval's own tasks by name: 6-9 s, once per process. Entries must not be changed."""
    return dict(TaskManager().task_index)


def known_metrics() -> frozenset[str]:
    """Name the metrics that are part of lm-eval; others are downloaded as code."""
    return frozenset(METRIC_REGISTRY)


def known_filters() -> frozenset[str]:
    """Name the filters that are part of lm-eval."""
    return frozenset(FILTER_REGISTRY)


def load_config(path: Path) -> dict[str, object]:
    """Read a task file with its includes merged and its functions imported (runs their code)."""
    config: dict[str, object] = load_yaml(path, resolve_func=True)
    return config


def without_data(part: Task | Group) -> Any:
    """Copy a task or group as it is now, with requests, settings and rules but not its datasets.

    Later changes of the task leave the copy alone. A task that is a Python class of its own keeps
    its data: who knows what its scoring reads.
    """
    kept = copy.copy(part)
    if isinstance(kept, Group):
        kept._children = {name: without_data(child) for name, child in kept._children.items()}
        return kept
    kept._config = copy.copy(kept._config)
    if type(kept) is ConfigurableTask:
        for name in ("dataset", "task_docs", "sampler", "_training_docs", "_fewshot_docs"):
            setattr(kept, name, None)
    return kept


def with_requests(task: Task, requests: Sequence[Instance]) -> Task:
    """Copy a task with some of its requests; its filters and metrics see no others."""
    kept = copy.copy(task)
    kept._instances = list(requests)
    return kept


def with_examples(task: Task, examples: Sequence[Mapping[str, object]] | None) -> None:
    """Let a task that is a Python class draw its examples from these; ``None``: from its own."""
    task._fewshot_docs = examples


def task_names(group: Group) -> frozenset[str]:
    """Name all tasks of a group, those of its groups included."""
    return frozenset(str(task.task_name) for task in group.get_all_tasks())


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

    lm-eval renders them in an ordinary environment, where a template can run any Python and take
    any memory, and compiles a template anew for every item.
    """
    original = lm_eval.utils.apply_template
    lm_eval.utils.apply_template = _apply_template
    try:
        yield
    finally:
        lm_eval.utils.apply_template = original


def _apply_template(template: str, doc: Mapping[str, object]) -> str:
    return bounded(lambda: _compiled(template).render(**doc), f"the template {template[:60]!r}")


@functools.lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    environment = SandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters.update(lm_eval.utils.env.filters)
    return environment.from_string(template)


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """List the tokens after which ``generate`` ends an answer."""
    ends = model.generation_config.eos_token_id
    return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)


def _is_hidden(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether padding after an answer disappears from its text."""
    return tokenizer.pad_token_id in tokenizer.all_special_ids


class LanguageModel:
    """A live model and its tokenizer the way lm-eval sees them: tokens, prompts, its own answers.

    Args:
        model: Used as it is at each call; put into evaluation mode.
        tokenizer: Copied, because lm-eval may give it a padding token.
        batch_size: Sequences per forward pass when lm-eval answers itself.
        reading: What else lm-eval is told: how long prompts may be, what they begin with.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        reading: Mapping[str, Any] = _AS_BY_DEFAULT,
    ) -> None:
        from lm_eval.models.huggingface import HFLM  # slow to import

        own = copy.deepcopy(tokenizer)
        self.lm = HFLM(pretrained=model, tokenizer=own, batch_size=batch_size, **reading)
        self._encode: Callable[[str], list[int]] = self.lm.tok_encode
        # The same prompts come again for every candidate: tokenise each text once.
        self.lm.tok_encode = functools.cache(self.lm.tok_encode)

    @classmethod
    def without_parameters(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        config: Any,
        reading: Mapping[str, Any] = _AS_BY_DEFAULT,
    ) -> Self:
        """Make what can shape and measure prompts, but not answer them.

        Args:
            tokenizer: Copied.
            config: Has the settings of the model as attributes.
            reading: See the class.
        """
        ends = getattr(config.get_text_config(), "eos_token_id", None)
        model: Any = SimpleNamespace(
            config=config,
            device=torch.device("meta"),
            generation_config=SimpleNamespace(eos_token_id=ends),
        )
        return cls(model, tokenizer, 1, reading)

    def longest_answer(self, generation_kwargs: Mapping[str, object]) -> int:
        """Tell how many tokens a request may generate, by any of the names for that setting."""
        return int(normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks)["max_gen_toks"])

    def tokens(self, text: str) -> list[int]:
        """Tokenise a text the way prompts are."""
        tokens: list[int] = self.lm.tok_encode(text)
        return tokens

    def answer_tokens(self, text: str) -> list[int]:
        """Tokenise what a candidate has said, which no other may say: nothing is kept."""
        return self._encode(text)

    def length(self, request: Instance) -> int:
        """Count the tokens of a prompt with what is scored after it; the last one is not read."""
        if request.request_type == "generate_until":
            return len(self.tokens(request.args[0]))
        return sum(map(len, self.pair(*request.args))) - 1

    def padded(self, texts: Sequence[str], room: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokenise prompts of one batch, padded on the left, leaving room for the answers.

        Returns:
            Tokens and mask, both (texts, length) int64.
        """
        limit = self.lm.max_length - room
        tokens, mask = self.lm.tok_batch_encode(list(texts), left_truncate_len=limit)
        return tokens.to(self.lm.device), mask.to(self.lm.device)

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenise a context and its continuation; an empty context becomes the prefix token.

        Raises:
            EvaluationError: There is nothing to score.
        """
        if context:
            tokens, scored = self.lm._encode_pair(context, continuation)
        else:
            scored = self.lm.tok_encode(continuation, add_special_tokens=False)
            tokens = [self.lm.prefix_token_id]
            if scored[:1] == tokens:
                scored = scored[1:]
        if not scored:
            raise EvaluationError(
                f"expected a continuation of at least one token, got {continuation!r} after "
                f"{context[-40:]!r}"
            )
        return tokens, scored

    def windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Cut a text into windows of the model's context, every token predicted once."""
        windows = lm_eval.utils.get_rolling_token_windows(
            token_list=self.lm.tok_encode(text),
            prefix_token=self.lm.prefix_token_id,
            max_seq_len=self.lm.max_length,
            context_len=1,
        )
        return [lm_eval.utils.make_disjoint_window(window) for window in windows]

    def is_plain_greedy(self, generation_kwargs: Mapping[str, object]) -> bool:
        """Tell whether a request takes the likeliest token until a stop string, and nothing else.

        Also required: the model stops at the tokenizer's end token, and no stop string lies inside
        another, so that an answer cut at once is the answer cut later.
        """
        settings = dict(normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks))
        plain = not settings.pop("do_sample") and settings.pop("temperature", 0.0) == 0.0
        stops = self.stop_strings(generation_kwargs)
        nested = any(a in b[1:-1] for a in stops for b in stops if a)
        tokenizer = self.lm.tokenizer
        ends = tokenizer.eos_token_id in end_tokens(self.lm.model)
        known = set(settings) <= {"until", "max_gen_toks"}
        return plain and known and not nested and ends and _is_hidden(tokenizer)

    def stop_strings(self, generation_kwargs: Mapping[str, object]) -> list[str]:
        """List the strings that end an answer, the end token's text last."""
        end = self.lm.tok_decode(self.lm.eot_token_id, skip_special_tokens=False)
        settings = normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks)
        stops: list[str] = handle_stop_sequences(settings.get("until"), eos=end)
        return stops

    def ends(self, generation_kwargs: Mapping[str, object]) -> tuple[int, ...]:
        """List tokens that may end an answer: end tokens, and what stop strings begin with."""
        letter = self.lm.tok_encode("a", add_special_tokens=False)
        found = dict.fromkeys(sorted(end_tokens(self.lm.model)))
        for stop in self.stop_strings(generation_kwargs):
            alone = self.lm.tok_encode(stop, add_special_tokens=False)
            after = self.lm.tok_encode(f"a{stop}", add_special_tokens=False)
            found |= dict.fromkeys(alone[:1])
            if after[: len(letter)] == letter:  # else the letter and the stop are one token
                found |= dict.fromkeys(after[len(letter) :][:1])
        return tuple(found)

    def decoded(self, tokens: Sequence[int]) -> str:
        """Turn the tokens of an answer into text as ``generate`` does."""
        text: str = self.lm.tok_decode(list(tokens))
        return text

    def cut(self, text: str, stops: Sequence[str]) -> str:
        """Cut a decoded answer at its stop strings."""
        kept: str = postprocess_generated_text(text, list(stops), None)
        return kept

    def own_answers(self, request_type: str, instances: Sequence[Instance]) -> list[object]:
        """Let lm-eval run the model itself, slowly."""
        answers: list[object] = getattr(self.lm, request_type)(list(instances), disable_tqdm=True)
        return answers
