"""What a model should write where a task generates: gold texts, or what a parent answered right."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from evomerge.errors import EvaluationError
from evomerge.evaluation.engine import Engine, PreparedRequests
from evomerge.evaluation.grader import Grader
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.smooth import gold_texts, scored_answer

__all__ = ["Answers", "RightAnswers", "parents_answers"]

_N_TRIED = 16  # items by which it is found out how answers are written, and what may follow them

Answers = Mapping[int, str]  # what one model answered, by row


class RightAnswers:
    """Finds right answers to the items of a task that generates, for one of its metrics.

    The gold text is one if the metric accepts it, unless parents that are right write something
    else, such as a chain of thought: then what the best parent answered right is one.

    Args:
        prepared: The task.
        metric: One of its own.
        lm: Tokenises; needs no parameters.
        engine: Answers it; ``None`` if it will not be asked.

    Attributes:
        prepared: The task.
    """

    def __init__(
        self, prepared: PreparedTask, metric: str, lm: LanguageModel, engine: Engine | None = None
    ) -> None:
        self.prepared, self._task = prepared, prepared.task
        self._lm, self._engine = lm, engine
        self._grader = Grader(prepared, metric)
        self._items = {item.row: item for item in prepared.items}
        self._stops = self._lm.stop_strings(self._task.config.generation_kwargs)
        self._golds = {row: self._accepted_gold(item) for row, item in self._items.items()}

    def requests(self, parents: Sequence[Answers] = ()) -> dict[int, Instance]:
        """Make requests that score the right answers.

        Args:
            parents: What each parent answered, to all items or some.

        Returns:
            By row, without items to which no right answer is known.
        """
        golds = self._golds if self._write_golds(parents) else dict.fromkeys(self._items)
        best_first = sorted(parents, key=lambda answers: -len(self._right(answers)))
        learnt = {row: self._learnt(row, best_first) for row in self._items}
        found = {row: golds[row] or learnt[row] for row in self._items}
        return {row: request for row, request in found.items() if request is not None}

    def lacking(self, parents: Sequence[Answers]) -> list[int]:
        """List the rows to which parents should give the answer.

        Args:
            parents: What each answered to the first few items.
        """
        if not self._write_golds(parents):
            return list(self._items)
        return [row for row, gold in self._golds.items() if gold is None]

    def ends(self, requests: Mapping[int, Instance]) -> tuple[int, ...]:
        """List the tokens that end an answer; none if most answers stay right when they run on.

        Args:
            requests: By row: right answers.
        """
        tried = [(self._items[row], request) for row, request in [*requests.items()][:_N_TRIED]]
        texts = [self._written(request) for _, request in tried]

        def most(answers: Iterable[str]) -> bool:
            pairs = zip(tried, answers, strict=False)
            return fmean(self._grader.accepts(item, text) for (item, _), text in pairs) > 0.5

        if most(f"{text} {after}" for text, after in zip(texts, texts[1:] + texts, strict=False)):
            return ()
        ends = self._lm.ends(self._task.config.generation_kwargs)
        return tuple(end for end in ends if most(self._written(r, end) for _, r in tried))

    def asking(self, rows: Collection[int]) -> tuple[list[int], PreparedRequests]:
        """Prepare the requests of some items.

        Returns:
            Their rows in ascending order, and the requests in the same.
        """
        assert self._engine is not None, "parents are asked where there is an engine"
        items = [item for row, item in self._items.items() if row in rows]
        return [item.row for item in items], self._engine.prepare([i.requests[0] for i in items])

    def _accepted_gold(self, item: Item) -> Instance | None:
        placed = (one for text in gold_texts(self._task, item) for one in self._placed(item, text))
        right = (one for one in placed if self._grader.accepts(item, self._written(one)))
        return next(right, None)

    def _learnt(self, row: int, parents: Sequence[Answers]) -> Instance | None:
        """The answer of the first parent that is right about an item."""
        item = self._items[row]
        for text in (answers[row] for answers in parents if row in answers):
            if self._grader.accepts(item, text):
                placed = self._placed(item, text)
                return next((one for one in placed if self._written(one) == text), None)
        return None

    def _right(self, answers: Answers) -> list[int]:
        return [
            row for row, text in answers.items() if self._grader.accepts(self._items[row], text)
        ]

    def _write_golds(self, parents: Sequence[Answers]) -> bool:
        """Whether what parents answer right is the gold text, more often than not."""
        same = [
            answers[row].strip()
            in [gold.strip() for gold in gold_texts(self._task, self._items[row])]
            for answers in parents
            for row in self._right(answers)
        ]
        return not same or fmean(same) >= 0.5

    def _placed(self, item: Item, text: str) -> list[Instance]:
        """An answer after its prompt as the task would write it, and without the space between."""
        spaced = scored_answer(self._task, item, text)
        bare = copy.copy(spaced)
        bare.arguments = (spaced.args[0], text)
        return [one for one in (spaced, bare) if self._tokens(one)]

    def _written(self, request: Instance, *more: int) -> str:
        """The text that a model has answered with once it has said these tokens and some more."""
        said = self._lm.decoded([*self._tokens(request), *more])
        return self._lm.cut(said, self._stops)

    def _tokens(self, request: Instance) -> list[int]:
        try:
            return self._lm.pair(*request.args)[1]
        except EvaluationError:  # it is no token of its own
            return []


def parents_answers(
    rights: Sequence[RightAnswers], parents: Callable[[], Iterator[None]]
) -> dict[str, list[Answers]]:
    """Ask parents for answers where gold texts are not what a model would write.

    They answer a few items of each task; the others only where it turns out to be needed.

    Args:
        rights: Of all metrics that are objectives.
        parents: Puts one parent after another into the live model, each time that it is called.

    Returns:
        By task name: what each parent answered.
    """
    by_task: dict[str, list[RightAnswers]] = defaultdict(list)
    for one in rights:
        by_task[one.prepared.name].append(one)
    few = {name: set(own[0].prepared.order[:_N_TRIED]) for name, own in by_task.items()}
    found = _asked(by_task, few, parents)
    more = {
        name: {row for one in own for row in one.lacking(found[name])} - few[name]
        for name, own in by_task.items()
    }
    if any(more.values()):
        for name, answers in _asked(by_task, more, parents).items():
            pairs = zip(found[name], answers, strict=True)
            found[name] = [{**before, **after} for before, after in pairs]
    return found


def _asked(
    by_task: Mapping[str, Sequence[RightAnswers]],
    rows: Mapping[str, Collection[int]],
    parents: Callable[[], Iterator[None]],
) -> dict[str, list[Answers]]:
    """Let each parent answer the items of these rows."""
    found: dict[str, list[Answers]] = {name: [] for name in by_task}
    asked = {name: own[0].asking(rows[name]) for name, own in by_task.items()}
    for _ in parents():
        for name, (order, requests) in asked.items():
            answers = requests.run() if order else []
            said = [str(each[0].response) for each in answers]
            found[name].append(dict(zip(order, said, strict=True)))
    return found
