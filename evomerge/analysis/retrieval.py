"""Which experts of a pool fit which task, by the answers that they give on prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from evomerge.arrays import Float32Array, FloatArray, IntArray

__all__ = ["Chosen", "KnowledgePair", "Retrieval", "TaskAnswers", "TaskFit", "retrieve"]


@dataclass(frozen=True)
class TaskAnswers:
    """What models say on the prompts of one task.

    Attributes:
        said: By model, the base among them: (positions, tokens) probabilities at every token of
            the right answers, of each token that occurs in them; last, of all others together.
        right: (positions,) column of the token that is right.
        prompts: (positions,) number of the prompt, ascending.
    """

    said: Mapping[str, Float32Array]
    right: IntArray
    prompts: IntArray


@dataclass(frozen=True)
class TaskFit:
    """How near the answers of all models lie to the right ones of one task.

    Attributes:
        task: Its name.
        n: Prompts.
        fits: By model: cosine of what it says and what is right, 0 to 1.
    """

    task: str
    n: int
    fits: Mapping[str, float]

    @property
    def best(self) -> str:
        """The model that fits best; of equal ones the first."""
        return max(self.fits, key=self.fits.__getitem__)


@dataclass(frozen=True)
class Chosen:
    """One expert, in the order in which they are best taken from the pool.

    Attributes:
        expert: Its name.
        adds: By how much it raises the probability of right answers, where each prompt is answered
            by whichever of base and experts chosen so far knows it best; mean over tasks.
    """

    expert: str
    adds: float


@dataclass(frozen=True)
class KnowledgePair:
    """How alike two experts changed the base's answers.

    Attributes:
        experts: Their names.
        cosine: Of the changes on all prompts: 1 alike, 0 apart, below 0 opposed; NaN where one
            changed nothing.
    """

    experts: tuple[str, str]
    cosine: float


@dataclass(frozen=True)
class Retrieval:
    """What the answers of a pool of experts say about whom to merge.

    Attributes:
        tasks: How well every model fits each.
        order: All experts, the one to take first in front.
        pairs: All pairs of experts.
    """

    tasks: tuple[TaskFit, ...]
    order: tuple[Chosen, ...]
    pairs: tuple[KnowledgePair, ...]


def retrieve(base: str, experts: Sequence[str], asked: Mapping[str, TaskAnswers]) -> Retrieval:
    """Rank experts by what they say.

    A model is the vector of probabilities that it gives, a task the vector that has a 1 at every
    right token; a model suits a task as far as both point the same way. This is the retrieval of
    Know2Vec without its networks, which encode both vectors and are trained on many pairs of
    models and tasks. Which experts add to which others is not of that paper.

    Args:
        base: Its name among the models.
        experts: The pool, at least one.
        asked: What all said, by task, at least one.

    Source:
        Shang et al. 2024, Know2Vec: A Black-Box Proxy for Neural Network Retrieval,
        arXiv:2412.16251, from whom the vectors of models and tasks, and their product, are.
    """
    fits = (
        TaskFit(
            task,
            len(np.unique(one.prompts)),
            {name: _fit(one, name) for name in (base, *experts)},
        )
        for task, one in asked.items()
    )
    return Retrieval(tuple(fits), tuple(_order(base, experts, asked)), _pairs(base, experts, asked))


def _fit(asked: TaskAnswers, model: str) -> float:
    """Compute the cosine of what a model says and what is right, a 1 at every position."""
    norms = float(np.linalg.norm(asked.said[model]) * np.sqrt(len(asked.right)))
    return float(_of_right(asked, model).sum()) / norms if norms else float("nan")


def _of_right(asked: TaskAnswers, model: str) -> FloatArray:
    """Read the probability of what is right at every position."""
    return asked.said[model][np.arange(len(asked.right)), asked.right].astype(float)


def _cosine(one: Float32Array, other: Float32Array) -> float:
    a, b = one.ravel().astype(float), other.ravel().astype(float)
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms else float("nan")


def _order(base: str, experts: Sequence[str], asked: Mapping[str, TaskAnswers]) -> Iterator[Chosen]:
    """Take in turn the expert that adds most to the base and those before it."""
    known = {name: [_known(one, name) for one in asked.values()] for name in (base, *experts)}
    covered, left = known[base], list(experts)
    while left:
        gains = {name: _mean(_most(covered, known[name])) - _mean(covered) for name in left}
        name = max(gains, key=gains.__getitem__)
        yield Chosen(name, gains[name])
        covered = _most(covered, known[name])
        left.remove(name)


def _known(asked: TaskAnswers, model: str) -> FloatArray:
    """Geometric mean over each right answer's tokens of their probabilities: (prompts,)."""
    right = _of_right(asked, model)
    _, own, n = np.unique(asked.prompts, return_inverse=True, return_counts=True)
    with np.errstate(divide="ignore"):  # nothing is known where a token is impossible
        return np.exp(np.bincount(own, np.log(right)) / n)


def _most(some: Sequence[FloatArray], others: Sequence[FloatArray]) -> list[FloatArray]:
    return [np.maximum(a, b) for a, b in zip(some, others, strict=True)]


def _mean(of_tasks: Sequence[FloatArray]) -> float:
    return float(np.mean([np.mean(known) for known in of_tasks]))


def _pairs(
    base: str, experts: Sequence[str], asked: Mapping[str, TaskAnswers]
) -> tuple[KnowledgePair, ...]:
    changes = {
        name: np.concatenate([(one.said[name] - one.said[base]).ravel() for one in asked.values()])
        for name in experts
    }
    return tuple(
        KnowledgePair((a, b), _cosine(changes[a], changes[b])) for a, b in combinations(experts, 2)
    )
