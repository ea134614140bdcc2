"""Which examples an item may be prompted with: never itself, and nothing that is held out.

lm-eval draws examples from the dataset split that a task names for them, and where there is none
from the split it scores. That one holds the item itself, which lm-eval leaves out only if the task
names the scored split, and where splits are shares of it, also what is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evomerge.errors import EvaluationError
from evomerge.evaluation.harness import Sampler, Task, with_examples
from evomerge.evaluation.selection import select_items
from evomerge.evaluation.suite import SPLITS
from evomerge.evaluation.tasks import LoadedSuite

__all__ = ["ApartSampler", "keep_examples_apart", "scored_docs"]

Doc = Mapping[str, object]


class ApartSampler:
    """Draws examples as lm-eval's sampler does, but none that shows the item it is drawn for.

    Args:
        sampler: Of lm-eval, over what may be an example.
        items: What examples will be drawn for, in this order.
        task: Whose items the examples are, too: one that only reads like the item, answer
            included, is left out with it. ``None``: they come from other data.
    """

    def __init__(self, sampler: Sampler, items: Iterable[Doc], task: Task | None) -> None:
        self._sampler, self._items, self._task = sampler, iter(items), task
        self._texts: dict[int, tuple[Doc, object]] = {}

    def set_rnd(self, rnd: int | None) -> None:
        """Seed the draws."""
        self._sampler.set_rnd(rnd)

    def sample(self, n: int, eval_doc: Doc | None = None) -> Sequence[Doc]:
        """Draw the examples of the next item.

        Args:
            n: How many.
            eval_doc: The item where lm-eval leaves it out: from one example more than it needs.

        Raises:
            EvaluationError: There are fewer.
        """
        item, pool = next(self._items), self._sampler.fewshot_docs()
        if len(pool) >= n:
            drawn: Sequence[Doc] = self._sampler.sample(
                n, eval_doc=eval_doc if len(pool) > n else None
            )
            if not any(self._shows(example, item) for example in drawn):
                return drawn
        others = [example for example in pool if not self._shows(example, item)]
        if len(others) < n:
            raise EvaluationError(
                f"expected {n} examples in a prompt (num_fewshot), got {len(others)} that are "
                "neither the item itself nor held out; ask for fewer, or let fewshot_split name a "
                "dataset split that is not scored"
            )
        again = type(self._sampler)(others)
        again.rnd = self._sampler.rnd
        examples: Sequence[Doc] = again.sample(n)
        return examples

    def _shows(self, example: Doc, item: Doc) -> bool:
        if example == item or self._task is None:
            return example == item
        as_example = self._text(self._task, example, self._task.fewshot_cfg)
        return as_example == self._text(self._task, item, self._task.config)

    def _text(self, task: Task, doc: Doc, how: Any) -> object:
        """What of a document is read in a prompt: question, choices and answer."""
        if id(doc) not in self._texts:
            choices = task.doc_to_choice(doc, how.doc_to_choice) if how.doc_to_choice else None
            question = task.doc_to_text(doc, how.doc_to_text)
            answer = task.doc_to_target(doc, how.doc_to_target)
            self._texts[id(doc)] = doc, (question, choices, answer)  # doc: keeps its id its own
        return self._texts[id(doc)][1]


def keep_examples_apart(loaded: LoadedSuite, name: str, rows: Sequence[int]) -> None:
    """Hold the examples of a task to what the items of one split may be prompted with.

    Examples from a dataset split that the suite scores come from the search items instead; from
    the first split there is if nothing is searched.

    Args:
        loaded: Its task is switched to the split.
        name: Of the task.
        rows: Of the items whose prompts are built next, ascending.

    Raises:
        EvaluationError: An item cannot be told from its own example.
    """
    task = loaded.tasks[name]
    if not task.config.num_fewshot:
        return
    docs = task.eval_docs
    pool = _pool(loaded, name)
    if not hasattr(task, "fewshot_cfg"):  # a Python class leaves the item out by itself
        if task.has_test_docs() != task.has_validation_docs():
            with_examples(task, pool)
        return
    sampler, items = loaded.samplers[name], [docs[row] for row in rows]
    if pool is None:
        task.sampler = ApartSampler(sampler, items, None)
    else:
        task.sampler = ApartSampler(type(sampler)(pool), items, task)


def _pool(loaded: LoadedSuite, name: str) -> list[Doc] | None:
    """The examples for every item of the suite; ``None`` where lm-eval's own are not scored."""
    task, suite = loaded.tasks[name], loaded.suite
    if _source(loaded, name) not in {_dataset_split(loaded, name, split) for split in suite.splits}:
        return None
    if hasattr(task, "fewshot_cfg") and task.fewshot_cfg.process_docs != task.config.process_docs:
        raise EvaluationError(
            "its examples come from a dataset split that is scored, by a process_docs of their own "
            "(fewshot_config), so an item cannot be told from its own example; let fewshot_split "
            "name a dataset split that is not scored"
        )
    donor = next(split for split in SPLITS if split in suite.splits)
    scored = task.config.test_split
    docs = scored_docs(loaded, name, donor)
    rows = select_items(replace(suite, limit=None), name, donor, len(docs))
    pool = [docs[row] for row in sorted(rows)]
    task.set_config(key="test_split", value=scored)
    return pool


def _source(loaded: LoadedSuite, name: str) -> str | None:
    """The dataset split that lm-eval draws examples from; ``None`` if they are written out."""
    config = loaded.tasks[name].config
    cfg = getattr(loaded.tasks[name], "fewshot_cfg", None)
    if cfg is not None and cfg.split is not None:
        return str(cfg.split)
    if cfg is not None and cfg.samples is not None:
        return None
    return config.training_split or config.validation_split or loaded.own_splits[name]


def _dataset_split(loaded: LoadedSuite, name: str, split: str) -> str | None:
    """Name the dataset split that the items of a task come from."""
    share = loaded.suite.splits[split]
    own = loaded.own_splits[name] or loaded.tasks[name].config.validation_split
    return share if isinstance(share, str) else own


def scored_docs(loaded: LoadedSuite, name: str, split: str) -> Sequence[Doc]:
    """Point a task at the dataset split that a split's items come from; return all of its rows."""
    share, task = loaded.suite.splits[split], loaded.tasks[name]
    value = share if isinstance(share, str) else loaded.own_splits[name]
    task.set_config(key="test_split", value=value)
    docs: Sequence[Doc] = task.eval_docs
    return docs
