"""From a prepared task and a metric to what a model should say about each item, as tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from evomerge.errors import EvaluationError
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.item_losses import (
    AnswerLoss,
    ChoiceEntropy,
    ChoiceLoss,
    ItemLoss,
    LossSettings,
    SumLoss,
)
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.requests import Item, PreparedTask
from evomerge.evaluation.right_answers import Answers, RightAnswers
from evomerge.evaluation.smooth import gold_choices, gold_texts, scored_answer, smooth_names
from evomerge.evaluation.teacher_forcing import Reading

__all__ = ["UNASKED", "SlopedItem", "Targets", "needs_answers"]

UNASKED = "no parent was asked"
"""How the fault ends that parents' answers may mend."""

_OF_ONE_ANSWER = ("gold_bpb", "exact_match")  # metrics of choices that look at the gold one alone


@dataclass(frozen=True)
class SlopedItem:
    """One item whose loss has a slope.

    Attributes:
        task: lm-eval task name.
        row: Its row in the dataset split.
        readings: What is read off the model.
        loss: From the readings to the item's loss.
        share: What its loss is multiplied with.
    """

    task: str
    row: int
    readings: tuple[Reading, ...]
    loss: ItemLoss
    share: float = 1.0


class Targets:
    """Finds what is right about the items of one task, for one of its metrics.

    Args:
        prepared: The task.
        metric: One of its own, or a smooth one.
        lm: Tokenises; needs no parameters.
        settings: What losses look at.
        parents: What each parent answered, where it was asked.
    """

    def __init__(
        self,
        prepared: PreparedTask,
        metric: str,
        lm: LanguageModel,
        settings: LossSettings,
        parents: Sequence[Answers] = (),
    ) -> None:
        self._prepared, self._task, self._metric = prepared, prepared.task, metric
        self._lm, self._q, self._parents = lm, settings.q, parents
        self._is_entropy = settings.kind == "entropy"

    def items(self) -> list[SlopedItem]:
        """Find the targets of the items; those without one are left out.

        Raises:
            EvaluationError: None has a target; says why.
        """
        self._require_declared()
        match self._task.OUTPUT_TYPE:
            case "multiple_choice" if self._is_entropy or self._metric not in _OF_ONE_ANSWER:
                found = [*self._choices()]
            case "loglikelihood" | "generate_until" if self._is_entropy:
                found = [self._undecided(item) for item in self._prepared.items]
            case "multiple_choice" | "loglikelihood":
                found = self._answered(
                    {i.row: r for i in self._prepared.items for r in self._gold(i)}
                )
            case "generate_until":
                found = self._generated()
            case _:
                found = self._texts()
        if not found:
            raise EvaluationError("no item has a gold answer")
        return found

    def _require_declared(self) -> None:
        """A task that is a Python class says less of itself than one that is YAML."""
        needs_choices = self._task.OUTPUT_TYPE == "multiple_choice"
        if not smooth_names(self._task) and (needs_choices or not self._is_entropy):
            what = "choices" if self._is_entropy else "gold answers"
            raise EvaluationError(f"a task that is a Python class says nowhere what its {what} are")

    def _choices(self) -> Iterator[SlopedItem]:
        """One reading for each choice, and one for each without its question if asked for."""
        for item in self._prepared.items:
            choices = self._task.doc_to_choice(item.doc)
            gold = () if self._is_entropy else gold_choices(self._task, item, choices)
            sizes = self._sizes(item, choices)
            if all(sizes) and (gold or self._is_entropy):
                n = len(choices) * (2 if self._metric == "acc_mutual_info" else 1)
                readings = tuple(self._reading(request) for request in item.requests[:n])
                entropy, loss = ChoiceEntropy(sizes), ChoiceLoss(sizes, gold, self._q)
                yield self._item(item, readings, entropy if self._is_entropy else loss)

    def _sizes(self, item: Item, choices: Sequence[str]) -> tuple[float, ...]:
        """What the metric divides log-likelihoods by."""
        match self._metric:
            case "acc_norm":
                return tuple(float(len(choice)) for choice in choices)
            case "acc_bytes":
                return tuple(float(len(choice.encode())) for choice in choices)
            case "gold_probability" | "brier":
                return tuple(float(_n_bytes(r)) for r in item.requests[: len(choices)])
            case _:
                return (1.0,) * len(choices)

    def _gold(self, item: Item) -> Iterator[Instance]:
        """The request that scores the gold answer, if the item has one."""
        if self._task.OUTPUT_TYPE != "multiple_choice":
            yield item.requests[0]
        else:
            choices = self._task.doc_to_choice(item.doc)
            yield from (item.requests[i] for i in gold_choices(self._task, item, choices)[:1])

    def _answered(
        self, requests: Mapping[int, Instance], ends: tuple[int, ...] = ()
    ) -> list[SlopedItem]:
        """Items with one answer each.

        Args:
            requests: By row: prompt and answer.
            ends: Tokens any of which ends an answer, where the metric looks at its end.
        """
        requests = {row: request for row, request in requests.items() if _n_bytes(request)}
        match self._metric:
            case "gold_bpb":
                loss: ItemLoss = SumLoss(-fmean(map(_n_bytes, requests.values())))
            case "perplexity":
                loss = SumLoss(-1.0)
            case _:
                loss = AnswerLoss(self._q)
        found = []
        for item in self._prepared.items:
            if item.row in requests:
                reading = self._reading(requests[item.row], ends)
                found.append(self._item(item, (reading,), loss))
        return found

    def _undecided(self, item: Item) -> SlopedItem:
        """The entropy of the first prediction after a prompt, whatever is right."""
        context, answer = self._lm.pair(item.requests[0].args[0], " 0")
        first = Reading(tuple(context), tuple(answer[:1]), is_entropy=True)
        return self._item(item, (first,), SumLoss(1.0))

    def _generated(self) -> list[SlopedItem]:
        if not needs_answers(self._prepared, self._metric):
            return self._answered(
                {
                    item.row: scored_answer(self._task, item, gold_texts(self._task, item)[0])
                    for item in self._prepared.items
                }
            )
        right = RightAnswers(self._prepared, self._metric, self._lm)
        requests = right.requests(self._parents)
        if not requests:
            also = "no parent is right about any item" if self._parents else UNASKED
            raise EvaluationError(f"{self._metric} accepts no gold text as an answer, and {also}")
        return self._answered(requests, right.ends(requests))

    def _texts(self) -> list[SlopedItem]:
        """Whole texts in windows."""
        texts = {item.row: item.requests[0].args[0] for item in self._prepared.items}
        count = self._task.count_words if self._metric == "word_perplexity" else _count_bytes
        mean_size = fmean(map(count, texts.values()))
        found = []
        for item in self._prepared.items:
            windows = self._lm.windows(texts[item.row])
            readings = tuple(
                Reading(tuple(context), tuple(scored), is_entropy=self._is_entropy)
                for context, scored in windows
            )
            n_tokens = sum(len(reading.continuation) for reading in readings)
            size = float(n_tokens) if self._is_entropy else -mean_size
            found.append(self._item(item, readings, SumLoss(size)))
        return found

    def _reading(self, request: Instance, ends: tuple[int, ...] = ()) -> Reading:
        context, continuation = self._lm.pair(*request.args)
        return Reading(tuple(context), tuple(continuation), ends)

    def _item(self, item: Item, readings: tuple[Reading, ...], loss: ItemLoss) -> SlopedItem:
        return SlopedItem(self._prepared.name, item.row, readings, loss)


def needs_answers(prepared: PreparedTask, metric: str) -> bool:
    """Tell whether a metric of a task judges what a model writes."""
    is_generated = prepared.task.OUTPUT_TYPE == "generate_until"
    return is_generated and metric != "gold_bpb" and bool(smooth_names(prepared.task))


def _n_bytes(request: Instance) -> int:
    return _count_bytes(request.args[-1])


def _count_bytes(text: str) -> int:
    return len(text.encode())
