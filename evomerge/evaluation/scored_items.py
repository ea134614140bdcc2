"""What a metric of one's own sees of an item, and what it says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.errors import EvaluationError
from evomerge.evaluation.scores import Verdict

__all__ = ["AnsweredItem", "OwnScore"]


@dataclass(frozen=True)
class AnsweredItem:
    """One item of a task and what a model answered, after one of the task's filters.

    Attributes:
        task: lm-eval task name.
        row: Row of the item in its dataset split.
        doc: The dataset row.
        prompt: What the model was asked.
        answers: One per request, as the task's own ``process_results`` gets them: a text where the
            task generates (a list of texts if it asks several times and keeps them all), else a
            log-likelihood, of choices with whether greedy decoding yields it.
        target: What is right, as the task says it; ``None`` where it does not.
    """

    task: str
    row: int
    doc: Mapping[str, object]
    prompt: str
    answers: tuple[object, ...]
    target: object

    @property
    def texts(self) -> list[str]:
        """The answers of a task that generates."""
        lists = [answer if isinstance(answer, list) else [answer] for answer in self.answers]
        return [str(text) for texts in lists for text in texts]

    def rendered(self, metric: str, what: str, template: str, answer: str) -> str:
        """Fill a template in for one of the texts.

        Args:
            metric: Whose template it is.
            what: What messages call it.
            template: Jinja, over ``doc``, ``prompt``, ``answer`` and ``target``.
            answer: The text.

        Raises:
            EvaluationError: The template fails.
        """
        from evomerge.evaluation.harness import rendered  # imports lm-eval

        known = {"doc": self.doc, "prompt": self.prompt, "answer": answer, "target": self.target}
        try:
            return rendered(template, known)
        except Exception as err:  # templates raise anything
            raise self.fault(metric, f"{what} fails: {' '.join(str(err).split())}") from err

    def fault(self, metric: str, text: str) -> EvaluationError:
        """Say what is wrong with a metric of this item."""
        return EvaluationError(f"metric {metric!r}, task {self.task!r}, item {self.row}: {text}")


@dataclass(frozen=True)
class OwnScore:
    """What a metric says of one item.

    Attributes:
        value: Finite.
        noise: Standard deviation of what it says when it is asked again; ``None`` if not known.
        verdicts: What a judge was asked and said.
    """

    value: float
    noise: float | None = None
    verdicts: tuple[Verdict, ...] = ()
