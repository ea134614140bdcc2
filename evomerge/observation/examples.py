"""Prompts that models are observed on, with what is said after them where that is known."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TypeGuard

from evomerge.errors import ConfigError, Fault
from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.requests import PreparedTask, PromptedSuite, texts_alone
from evomerge.evaluation.smooth import gold_choices, gold_texts, scored_answer, smooth_names

__all__ = ["Example", "examples_text", "gold_examples", "read_examples", "task_examples"]


@dataclass(frozen=True)
class Example:
    """One thing that models read.

    Attributes:
        prompt: What stands before the answer; of a text without answer, all of it.
        answer: What follows, with the space between, if any; ``None``: every token of the text
            answers those before it.
        expert: Which expert it is for; ``None``: all.
    """

    prompt: str
    answer: str | None = None
    expert: str | None = None


def read_examples(file: Path, limit: int) -> tuple[Example, ...]:
    """Read examples from a file.

    Args:
        file: JSON lines with the keys ``prompt`` and, where there is one, ``answer``, and
            ``expert``, if it is for one of them alone; by any other ending than ``.jsonl``, plain
            text, of which every line that is not empty is one.
        limit: How many, from the start.

    Raises:
        ConfigError: It cannot be read, has no examples, or a line is none; every fault.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "it is no UTF-8 text"
        raise ConfigError(f"expected a file of prompts at {file}: {reason}") from err
    wanted = islice(((n, line) for n, line in enumerate(lines, 1) if line.strip()), limit)
    if file.suffix != ".jsonl":
        found = [Example(line) for _, line in wanted]
    else:
        faults: list[Fault] = []
        found = list(_parsed(wanted, file, faults))
        if faults:
            raise ConfigError(*faults)
    if not found:
        raise ConfigError(f"expected at least one prompt in {file}, found none")
    return tuple(found)


def _parsed(lines: Iterable[tuple[int, str]], file: Path, faults: list[Fault]) -> Iterator[Example]:
    for number, line in lines:
        try:
            content = json.loads(line)
        except ValueError:
            content = None
        if _is_example(content):
            yield Example(content["prompt"], content.get("answer") or None, content.get("expert"))
        else:
            text = 'expected {"prompt": TEXT}, beside it at most "answer" and "expert"'
            faults.append(Fault((), f"{text}, got {line[:60]!r} ({file}, line {number})"))


def _is_example(content: object) -> TypeGuard[dict[str, str]]:
    """Tell whether a line has a prompt, and nothing but texts by the keys of an example."""
    if not isinstance(content, dict) or not content.get("prompt"):
        return False
    is_known = content.keys() <= {"prompt", "answer", "expert"}
    return is_known and all(isinstance(value, str | None) for value in content.values())


def examples_text(examples: Iterable[Example]) -> str:
    """Write examples as JSON lines; ``read_examples`` of them gives the same ones."""
    entries = [
        {key: value for key, value in asdict(one).items() if value is not None} for one in examples
    ]
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


def gold_examples(suites: Sequence[PromptedSuite], limit: int) -> tuple[Example, ...]:
    """Take examples from prepared suites, from all tasks in turn.

    Args:
        suites: Of the split that is searched: what is observed is fitted.
        limit: How many at most.

    Returns:
        Prompts with their gold answers; without, where an item says nowhere what is right.
    """
    tasks = list(task_examples(suites, limit).values())
    longest = max(map(len, tasks), default=0)
    in_turn = (task[i] for i in range(longest) for task in tasks if i < len(task))
    return tuple(islice(in_turn, limit))


def task_examples(suites: Sequence[PromptedSuite], limit: int) -> dict[str, tuple[Example, ...]]:
    """Take the first examples of every task of prepared suites, by its name.

    Args:
        suites: See ``gold_examples``.
        limit: How many of each at most.
    """
    with clean_harness():
        return {
            task.name: tuple(islice(_of_task(task), limit))
            for suite in suites
            for task in texts_alone(suite.tasks)
        }


def _of_task(prepared: PreparedTask) -> Iterator[Example]:
    task = prepared.task
    for item in prepared.items:
        first = item.requests[0]
        match task.OUTPUT_TYPE:
            case "loglikelihood_rolling":
                yield Example(first.args[0])
            case "loglikelihood":
                yield Example(*first.args)
            case "generate_until" if smooth_names(task):
                yield Example(*scored_answer(task, item, gold_texts(task, item)[0]).args)
            case "multiple_choice" if gold := gold_choices(
                task, item, task.doc_to_choice(item.doc)
            ):
                yield Example(*item.requests[gold[0]].args)
            case _:
                yield Example(first.args[0])
