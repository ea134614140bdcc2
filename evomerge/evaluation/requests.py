"""Building the requests of one split: which items, with which prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from evomerge.errors import EvaluationError, Fault
from evomerge.evaluation.bounded import bounded
from evomerge.evaluation.chat import require_chat
from evomerge.evaluation.examples import keep_examples_apart, scored_docs
from evomerge.evaluation.harness import (
    FEWSHOT_SEED,
    GENERATION,
    Group,
    Instance,
    Task,
    without_data,
)
from evomerge.evaluation.images import has_images, require_images
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.reasoning import Tags, tags_of
from evomerge.evaluation.selection import select_items
from evomerge.evaluation.suite import Suite
from evomerge.evaluation.tasks import LoadedSuite, why

_LIKELIHOODS = ("loglikelihood", "multiple_choice")

__all__ = ["Item", "PreparedTask", "PromptedSuite", "prepare_split", "prompt_suite", "texts_alone"]


@dataclass(frozen=True)
class Item:
    """One item with its requests.

    Attributes:
        row: Its row in the dataset split.
        doc: The dataset row.
        requests: lm-eval instances in the order the task expects their responses.
    """

    row: int
    doc: Mapping[str, object]
    requests: tuple[Instance, ...]


@dataclass(frozen=True)
class PreparedTask:
    """A task whose requests for one split are built.

    Attributes:
        name: lm-eval task name.
        task: Owns the requests as ``task.instances``.
        items: In ascending row order.
        order: Their rows in the order in which fewer of them would be taken.
        own: Metrics of one's own by name, beside the task's.
    """

    name: str
    task: Task
    items: tuple[Item, ...]
    order: tuple[int, ...]
    own: Mapping[str, OwnMetric] = field(default_factory=dict)

    @property
    def is_sampled(self) -> bool:
        """Whether its answers are drawn at random."""
        settings = getattr(self.task.config, "generation_kwargs", None) or {}
        return bool(settings.get("do_sample")) or float(settings.get("temperature") or 0) > 0


@dataclass(frozen=True)
class PromptedSuite:
    """A suite whose prompts for one split are built: all that it takes to score a model.

    It holds no dataset, and may be sent to another process.

    Attributes:
        suite: Where it came from.
        groups: lm-eval groups by name.
        tasks: In the order of the suite.
        tags: Around reasoning before answers; ``None`` if it is not looked for.
    """

    suite: Suite
    groups: Mapping[str, Group]
    tasks: tuple[PreparedTask, ...]
    tags: Tags | None = None


def texts_alone(tasks: Iterable[PreparedTask]) -> Iterator[PreparedTask]:
    """Yield the tasks whose prompts have no images."""
    return (one for one in tasks if not has_images(one.task))


def prompt_suite(
    loaded: LoadedSuite, split: str, model: LanguageModel | None, *, first_only: bool = False
) -> PromptedSuite:
    """Build the prompts of a suite for the items of one split; see ``prepare_split``."""
    tasks = prepare_split(loaded, split, model, first_only=first_only)
    groups = {name: without_data(group) for name, group in loaded.groups.items()}
    tags = None if model is None else tags_of(model.lm.tokenizer, loaded.suite.reasoning)
    return PromptedSuite(loaded.suite, groups, tuple(tasks), tags)


def prepare_split(
    loaded: LoadedSuite,
    split: str,
    model: LanguageModel | None,
    *,
    first_only: bool = False,
) -> list[PreparedTask]:
    """Build the requests of every task for the items of one split.

    Args:
        loaded: Its tasks are switched to the split; what is returned stays as it is.
        split: One of ``SPLITS``.
        model: Whose chat template shapes the prompts; ``None`` leaves the template out.
        first_only: Build only the first item of each task, as a check.

    Raises:
        EvaluationError: Every fault found, by the keys of the suite.
    """
    prepared, faults = [], []
    suite = loaded.suite
    if split not in suite.splits:
        text = f"no split {split!r}, only {', '.join(suite.splits)}"
        raise EvaluationError(Fault(("splits",), text))
    if model is not None:
        require_chat(model, suite)
    no_images = _no_images(loaded, model)
    for name, task in loaded.tasks.items():
        if no_images and has_images(task):
            faults.append(Fault(suite.path_of(name), f"task {name!r} {no_images}"))
            continue
        try:
            order = _switch_split(loaded, name, split)
            order = sorted(order)[:1] if first_only else order
            rows = sorted(order)
            keep_examples_apart(loaded, name, rows)
            _build(task, rows, suite, model)
            _check_images(task, model)
            _check_length(task, model)
            _check_reasoning(task, suite, model)
            items = _items(task.instances, rows)
            own = loaded.own_metrics(name)
            prepared.append(PreparedTask(name, without_data(task), items, tuple(order), own))
        except Exception as err:  # templates and task code raise anything
            text = f"task {name!r}, split {split!r}: {why(err, {})}"
            faults.append(Fault(suite.path_of(name), text))
    if faults:
        raise EvaluationError(*faults)
    return prepared


def _no_images(loaded: LoadedSuite, model: LanguageModel | None) -> str | None:
    """Say why a model cannot be shown the images of a suite; ``None`` if it can."""
    if model is None or not any(map(has_images, loaded.tasks.values())):
        return None
    if not model.reads_images:
        return "has images, but the base reads text alone; take a base of vision and language"
    if loaded.suite.chat_template_args:
        names = ", ".join(loaded.suite.chat_template_args)
        text = "has images, and lm-eval tells their chat template nothing more"
        return f"{text}, got chat_template_args {names}; give it an evaluator without them"
    try:
        model.images  # noqa: B018
    except EvaluationError as err:
        return f"has images: {err}"
    return None


def _switch_split(loaded: LoadedSuite, name: str, split: str) -> list[int]:
    """Point a task at the dataset split it is to be scored on; return the rows to use, in order.

    Raises:
        EvaluationError: There is no such split, it may not be scored, or it has no items.
    """
    task, suite, own = loaded.tasks[name], loaded.suite, loaded.own_splits[name]
    share = suite.splits[split]
    if isinstance(share, str):
        _check_named_split(task, share, own, suite)
    docs = scored_docs(loaded, name, split)
    rows = select_items(suite, name, split, len(docs))
    if not rows:
        raise EvaluationError(f"no items: {share!r} of {len(docs)}")
    return rows


def _check_named_split(task: Task, share: str, own: str | None, suite: Suite) -> None:
    if not hasattr(task, "fewshot_cfg"):
        raise EvaluationError("a task that is a Python class keeps its own split; give a fraction")
    if share not in task.dataset:
        raise EvaluationError(
            f"the dataset has no split {share!r}, only {', '.join(sorted(task.dataset))}"
        )
    fractions = [name for name, value in suite.splits.items() if not isinstance(value, str)]
    if fractions and share == (own or task.config.validation_split):
        raise EvaluationError(
            f"the dataset split {share!r} is what the fractions ({', '.join(fractions)}) are cut "
            "from, so held-out items would be searched; name another one, or give a fraction"
        )


def _build(task: Task, rows: Sequence[int], suite: Suite, model: LanguageModel | None) -> None:
    lm, chat = None, None
    if model is not None and suite.apply_chat_template:
        images = has_images(task)
        apply = model.images.in_chat() if images else model.in_chat(suite.chat_template_args)
        lm, chat = model.lm, partial(_in_chat, apply)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    task.build_all_requests(
        samples=set(rows),  # lm-eval asks for a list, and searches it once per row of the dataset
        rank=0,
        world_size=1,
        system_instruction=suite.system_instruction,
        apply_chat_template=lm is not None,
        fewshot_as_multiturn=suite.fewshot_as_multiturn,
        chat_template=chat,
        tokenizer_name="" if lm is None else lm.tokenizer_name,
    )


def _in_chat(apply: Callable[..., str], *turns: object, **settings: object) -> str:
    return bounded(lambda: apply(*turns, **settings), "the chat template")


def _check_images(task: Task, model: LanguageModel | None) -> None:
    if model is not None and has_images(task):
        for request in task.instances:
            require_images(request, model.images.n_places(request.args[0]))


def _check_length(task: Task, model: LanguageModel | None) -> None:
    """Refuse prompts and answers that the model's context cannot hold; lm-eval would cut them.

    So are prompts and answers without a token, of which transformers' ``generate`` makes nothing.
    """
    if model is None or task.OUTPUT_TYPE == "loglikelihood_rolling":
        return  # whole texts are cut into windows
    answer, context = _longest_answer(task, model), model.lm.max_length
    prompts = [model.length(request) for request in task.instances]
    if task.OUTPUT_TYPE == GENERATION and (n_empty := prompts.count(0)):
        raise EvaluationError(
            f"{n_empty} of {len(prompts)} prompts have no token that could be answered; write a "
            "doc_to_text that has, or set engine: {add_bos_token: true}"
        )
    lengths = [length + answer for length in prompts]
    too_long = [length for length in lengths if length > context]
    if too_long:
        raise EvaluationError(
            f"{len(too_long)} of {len(lengths)} prompts take up to {max(too_long)} tokens with "
            f"their answers, but the context of the model is {context}; use fewer examples "
            "(num_fewshot), or leave long items out of the data"
        )


def _longest_answer(task: Task, model: LanguageModel) -> int:
    """Tell how many tokens an answer may take; 0 where none is generated."""
    if task.OUTPUT_TYPE != GENERATION:
        return 0
    answer, context = model.longest_answer(task.config.generation_kwargs), model.lm.max_length
    if not 0 < answer < context:
        is_long = f", but the context of the model is {context}" if answer > 0 else ""
        raise EvaluationError(
            f"answers may take {answer} tokens{is_long}; set max_gen_toks in generation_kwargs"
        )
    return answer


def _check_reasoning(task: Task, suite: Suite, model: LanguageModel | None) -> None:
    """Refuse to score a given text where the reasoning should come; lm-eval would do it."""
    is_given = task.OUTPUT_TYPE in _LIKELIHOODS or task.config.task in suite.smooth
    if model is None or not is_given:
        return
    tags = tags_of(model.lm.tokenizer, suite.reasoning)
    if tags and any(tags.begin_in(request.args[0]) for request in task.instances):
        raise EvaluationError(
            f"the prompts end with {tags.start}, so that a model would reason where a given text "
            "is scored; ask for no reasoning (chat_template_args: {enable_thinking: false}, if the "
            "template knows that), drop apply_chat_template, or set reasoning: keep"
        )


def _items(instances: Sequence[Instance], rows: Sequence[int]) -> tuple[Item, ...]:
    """Group requests by item; lm-eval numbers the chosen items from 0 in row order."""
    requests: dict[int, list[Instance]] = defaultdict(list)
    for instance in instances:
        requests[instance.doc_id].append(instance)
    return tuple(
        Item(rows[doc_id], group[0].doc, tuple(sorted(group, key=lambda request: request.idx)))
        for doc_id, group in sorted(requests.items())
    )
