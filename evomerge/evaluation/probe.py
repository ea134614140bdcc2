"""The short look at a live model that gates decide by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from evomerge.evaluation.engine import Engine, PreparedRequests
from evomerge.evaluation.gates import Gates, Health, worst
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.requests import PreparedTask

__all__ = ["Gate", "Probe", "is_runaway"]

_PROMPT_CHARACTERS = 2048  # of prompts read per suite: little beside scoring, and enough to tell
_N_ANSWERS = 8  # greedy answers per task


class Probe:
    """A short look at a live model, prepared once.

    Args:
        tasks: The prompts come from them.
        engine: Runs the model.
        gates: How long answers are tried.
    """

    def __init__(self, tasks: Sequence[PreparedTask], engine: Engine, gates: Gates) -> None:
        self._lm, self._limit = engine.language_model, gates.answer_tokens
        self.texts = _texts(tasks)
        self._reading = engine.prepare([_reading(text) for text in self.texts])
        answers = [r for task in tasks for r in self._long_answers(task)]
        self._answering: PreparedRequests | None = engine.prepare(answers) if answers else None

    def measure(self) -> Health:
        """Look at the model as it is now."""
        read = [answer for answers in self._reading.run() for answer in answers]
        nats = -math.fsum(float(answer.response) for answer in read)  # type: ignore[arg-type]
        per_token = nats / sum(answer.tokens for answer in read)
        if self._answering is None or not math.isfinite(per_token):
            return Health(per_token, 0.0)
        answered = [answer for answers in self._answering.run() for answer in answers]
        loops = [
            answer.tokens >= self._limit and is_runaway(self._lm.answer_tokens(answer.text))
            for answer in answered
        ]
        return Health(per_token, sum(loops) / len(loops))

    def _long_answers(self, prepared: PreparedTask) -> list[Instance]:
        """The first requests of a task that generates, cut short."""
        task = prepared.task
        if task.OUTPUT_TYPE != "generate_until":
            return []
        if self._lm.longest_answer(task.config.generation_kwargs) <= self._limit:
            return []
        kept = {"until": task.config.generation_kwargs.get("until", []), "do_sample": False}
        settings = {**kept, "max_gen_toks": self._limit}
        prompts = [item.requests[0].args[0] for item in prepared.items[:_N_ANSWERS]]
        return [_instance("generate_until", (prompt, settings)) for prompt in prompts]


class Gate:
    """Compares candidates with their parents.

    Args:
        gates: When to give up.
        probes: One per suite, all on the live model.
        parents: Puts one parent after another into the live model.
    """

    def __init__(self, gates: Gates, probes: Sequence[Probe], parents: Iterator[None]) -> None:
        self._gates, self._probes = gates, probes
        healths = [[probe.measure() for probe in probes] for _ in parents]
        self._worst = [worst(of_probe) for of_probe in zip(*healths, strict=True)]

    def reason(self) -> str | None:
        """Say why the live model is given up; ``None`` lets it pass."""
        for probe, parents in zip(self._probes, self._worst, strict=True):
            reason = self._gates.reason(probe.measure(), parents)
            if reason is not None:
                return reason
        return None


def is_runaway(tokens: Sequence[int]) -> bool:
    """Tell whether the second half of an answer is one short piece over and over, or nothing."""
    tail = list(tokens[len(tokens) // 2 :])
    return not tail or any(
        all(a == b for a, b in zip(tail, tail[period:], strict=False))
        for period in range(1, len(tail) // 3 + 1)
    )


def _texts(tasks: Sequence[PreparedTask]) -> list[str]:
    """The first prompts of every task, each task with the same share."""
    share = _PROMPT_CHARACTERS // max(1, len(tasks))
    texts: list[str] = []
    for task in tasks:
        used = 0
        for item in task.items:
            text = item.requests[0].args[0] or item.requests[0].args[-1]
            if used >= share:
                break
            texts.append(text[: share - used])
            used += len(text)
    return list(dict.fromkeys(texts))


def _reading(text: str) -> Instance:
    return _instance("loglikelihood_rolling", (text,))


def _instance(request_type: str, arguments: tuple[object, ...]) -> Instance:
    return Instance(
        request_type=request_type, doc={}, arguments=arguments, idx=0, metadata=("gate", 0, 1)
    )
