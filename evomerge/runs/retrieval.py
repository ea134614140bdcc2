"""What base and experts answer on search items, for choosing among the experts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from evomerge.analysis.retrieval import Retrieval, TaskAnswers, retrieve
from evomerge.arrays import Float32Array
from evomerge.evaluation.teacher_forcing import predictions
from evomerge.observation.examples import Example, task_examples
from evomerge.observation.reading import tokenised
from evomerge.recipe.path import BASE
from evomerge.recipe.rules import copy_rule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from evomerge.merging.sources import Sources
    from evomerge.observation.reading import Tokenised
    from evomerge.runs.loaded import Loaded

__all__ = ["ask", "search_retrieval"]

_N_PROMPTS = 32  # per task


def search_retrieval(
    loaded: Loaded,
    sources: Sources,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Retrieval:
    """Rank the experts by their answers on the first items that a search would see."""
    examples = task_examples(loaded.tasks.prompted("search"), _N_PROMPTS)
    experts = tuple(loaded.models.experts)
    return retrieve(BASE, experts, ask(loaded, sources, examples, progress))


@torch.no_grad()
def ask(
    loaded: Loaded,
    sources: Sources,
    examples: Mapping[str, Sequence[Example]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, TaskAnswers]:
    """Run base and experts, one after another in one live model, over prompts.

    Args:
        loaded: Whose base and experts.
        sources: These, opened.
        examples: By task. Where none says what is right, a text itself is what is to be said.
        progress: Called after each model with how many are done, and how many there are.

    Returns:
        By task.

    Raises:
        NonFiniteError: A model holds NaN or infinity.
    """
    from evomerge.merging.candidate import LiveCandidate

    sources.check_finite()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    candidate, models = LiveCandidate(sources, device=device), (BASE, *loaded.models.experts)
    tasks = {task: _Task(tokenised(own, sources.anchor)) for task, own in examples.items()}
    said: dict[str, dict[str, Float32Array]] = {task: {} for task in tasks}
    for i, name in enumerate(models, 1):
        rule = copy_rule(name, loaded.models.experts)
        candidate.materialise(loaded.models.recipe((rule,)))
        for task, own in tasks.items():
            said[task][name] = own.said(candidate.model)
        progress(i, len(models))
    return {task: TaskAnswers(said[task], own.right, own.prompts) for task, own in tasks.items()}


class _Task:
    """The prompts of a task, and which tokens of its answers matter."""

    def __init__(self, read: Tokenised) -> None:
        self._read = read
        answers = [one.continuation for one in read.readings]
        flat = np.array([token for answer in answers for token in answer])
        self._tokens, self.right = np.unique(flat, return_inverse=True)
        self.prompts = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])

    def said(self, model: PreTrainedModel) -> Float32Array:
        """Probabilities of the answers' tokens and of all others, at each token of an answer."""
        rows: list[torch.Tensor] = []
        for reading in self._read.readings:
            (target,), log_p = predictions(model, [reading], self._read.max_length)
            own = log_p[target.greedy_positions.to(log_p.device)][:, self._tokens].exp()
            rows.append(torch.cat([own, (1 - own.sum(1, keepdim=True)).clamp(0)], dim=1))
        found: Float32Array = torch.cat(rows).float().cpu().numpy()
        return found
