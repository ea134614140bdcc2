"""One item of a task as a person would look at it: what was asked, what came, what was right."""

from __future__ import annotations

from contextlib import suppress

from evomerge.evaluation.harness import Task
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.scores import Sample

__all__ = ["item_sample", "sample_of"]

_LONGEST = 400  # characters of each text


def sample_of(prepared: PreparedTask) -> Sample | None:
    """Show the first item of a task that was just scored, long texts cut; see ``item_sample``."""
    sample = item_sample(prepared, prepared.items[0])
    if sample is None:
        return None
    return Sample(sample.prompt[-_LONGEST:], sample.answer[:_LONGEST], sample.gold[:_LONGEST])


def item_sample(prepared: PreparedTask, item: Item) -> Sample | None:
    """Show an item of a task that was just scored, its texts whole.

    Args:
        prepared: The task, its requests answered.
        item: One of its items.

    Returns:
        ``None`` where the task does not say what is right, as Python classes may not, or where it
        scores whole texts.
    """
    task = prepared.task
    if not hasattr(task, "doc_to_choice") or task.OUTPUT_TYPE == "loglikelihood_rolling":
        return None
    with suppress(Exception):  # templates raise anything, and scores do not need a sample
        return Sample(str(item.requests[0].args[0]), _answer(task, item), _gold(task, item))
    return None


def _answer(task: Task, item: Item) -> str:
    """The text that was generated, or the likeliest of the choices."""
    if task.OUTPUT_TYPE == "generate_until":
        return str(item.requests[0].resps[0])
    n_choices = len(item.requests)
    if task.OUTPUT_TYPE == "multiple_choice":
        n_choices = len(task.doc_to_choice(item.doc))
    return str(max(item.requests[:n_choices], key=lambda r: r.resps[0][0]).args[1])


def _gold(task: Task, item: Item) -> str:
    gold = task.doc_to_target(item.doc)
    if task.OUTPUT_TYPE == "multiple_choice" and isinstance(gold, int):
        return str(task.doc_to_choice(item.doc)[gold])
    return str(gold)
