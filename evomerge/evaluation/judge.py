"""A language model as judge: what it is asked, and the number that is read off its reply."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated

from pydantic import ConfigDict, Field

from evomerge.cache import cache_folder, read_entry, write_entry
from evomerge.errors import EvaluationError, Fault, StudyError
from evomerge.evaluation.endpoint import Endpoint
from evomerge.evaluation.scored_items import AnsweredItem, OwnScore
from evomerge.evaluation.scores import Verdict
from evomerge.fingerprint import digest_of
from evomerge.secrets import filled_in, holds_password

__all__ = ["Judge"]

_TRIES = 3  # of a reply without a verdict
_NUMBER = r"-?\d+(?:\.\d+)?"
_VERDICT = rf"\[\[\s*({_NUMBER})\s*\]\]"
_ALONE = re.compile(rf"\s*({_NUMBER})\s*\.?\s*")

_Count = Annotated[int, Field(gt=0, le=1000)]
_replies: dict[str, list[str]] = {}  # of this process, by digest of model and prompt


@dataclass(frozen=True)
class Judge:
    """Who judges, what is asked, and how the verdict is read.

    Attributes:
        url: OpenAI-compatible, as far as ``/v1``; ``${NAME}`` stands for environment variables.
        model: Its name there.
        prompt: Template over ``prompt``, ``answer``, ``target`` and ``doc`` (the dataset row).
        scale: Lowest and highest verdict; a reply with another one is none.
        api_key_env: Environment variable that has the key; absent: no key is sent.
        samples: How often each answer is judged; their mean counts, their spread is the noise.
        timeout: Seconds for one reply.
        parallel: How many questions of a worker are open at once.
        verdict: Regular expression whose group is the number, the last match counts; absent:
            ``[[7]]``, or a reply that is a number alone.
        options: More keys of the request; absent: ``temperature: 0`` for one sample, else none.
    """

    url: str
    model: str
    prompt: str
    scale: tuple[float, float]
    api_key_env: str | None = None
    samples: _Count = 1
    timeout: Annotated[float, Field(gt=0, le=86400)] = 60.0
    parallel: _Count = 8
    verdict: str | None = None
    options: Mapping[str, object] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def faults(self) -> Iterator[Fault]:
        """Find what is wrong before anybody is asked."""
        if holds_password(self.url):
            hint = "leave it out, or name the environment variable that has it as api_key_env"
            yield Fault(("url",), "expected a URL without a password", hint)
        else:
            yield from self._url_faults()
        if not self.scale[0] < self.scale[1]:
            text = f"expected the lowest verdict and the highest, got {list(self.scale)}"
            yield Fault(("scale",), text)
        if self.api_key_env is not None and not os.environ.get(self.api_key_env, "").strip():
            text = (
                f"expected a key in the environment variable {self.api_key_env!r:.60}, found none"
            )
            yield Fault(("api_key_env",), text, "set it, or leave the key out if none is needed")
        try:
            groups = re.compile(self._pattern).groups
            if groups != 1:
                yield Fault(("verdict",), f"expected one group in the expression, got {groups}")
        except re.error as err:
            yield Fault(("verdict",), f"expected a regular expression, got one with {err}")
        if taken := {"messages", "model", "stream", "n"} & (self.options or {}).keys():
            text = f"expected other keys than {', '.join(sorted(taken))}, which are set already"
            yield Fault(("options",), text)

    def _url_faults(self) -> Iterator[Fault]:
        try:
            if not filled_in(self.url).startswith(("http://", "https://")):
                yield Fault(("url",), f"expected http:// or https://, got {self.url!r:.60}")
        except StudyError as err:
            yield Fault(("url",), str(err).replace("which the storage names", "which it names"))

    @property
    def content(self) -> list[object]:
        """What verdicts depend on, as plain data: not where the judge is, nor how fast."""
        asked = [self.model, self.prompt, list(self.scale), self.samples, self._pattern]
        return [*asked, dict(self._options)]

    def scores(
        self, metric: str, items: Sequence[AnsweredItem], *, is_patient: bool = True
    ) -> list[OwnScore]:
        """Judge items; a question that was asked before, here or in the cache, is not asked again.

        Args:
            metric: What messages and verdicts call it.
            items: What to judge.
            is_patient: Whether a judge that does not reply is waited for.

        Raises:
            EvaluationError: No reply, or none with a verdict; what was said so far is kept.
        """
        what = "the judge's prompt"
        asked = [
            (item, text, item.rendered(metric, what, self.prompt, text))
            for item, text in _texts(items)
        ]
        askers: dict[str, AnsweredItem] = {}
        for item, _, question in asked:
            askers.setdefault(question, item)
        with ThreadPoolExecutor(min(self.parallel, max(1, len(askers)))) as pool:
            try:
                found = list(pool.map(partial(self._answered, metric, is_patient), askers.items()))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        said = dict(zip(askers, found, strict=True))
        judged = (self._verdict(metric, item, text, q, said[q]) for item, text, q in asked)
        return [_score([next(judged) for _ in item.texts]) for item in items]

    def _verdict(
        self, metric: str, item: AnsweredItem, text: str, question: str, replies: Sequence[str]
    ) -> Verdict:
        numbers = tuple(map(self._number, replies))
        return Verdict(item.task, item.row, metric, question, text, tuple(replies), numbers)

    def _answered(
        self, metric: str, is_patient: bool, asker: tuple[str, AnsweredItem]
    ) -> list[str]:
        question, item = asker
        try:
            return self._replies(question, is_patient)
        except EvaluationError as err:
            raise item.fault(metric, str(err)) from None

    def _replies(self, question: str, is_patient: bool) -> list[str]:
        """Give as many replies as there are samples, those that are known first."""
        digest = digest_of(self.model, question, self._pattern, self.scale, dict(self._options))
        known = _replies.get(digest) or _kept(digest)
        replies = list(known)
        try:
            while len(replies) < self.samples:
                replies.append(self._reply(question, is_patient))
        finally:  # what was said before a failure is kept
            if len(replies) > len(known):
                _keep(digest, replies)
            _replies[digest] = replies
        return replies[: self.samples]

    def _reply(self, question: str, is_patient: bool) -> str:
        """Ask until a reply has a verdict."""
        endpoint = Endpoint(self.url, self.model, self.api_key_env, self.timeout, self._options)
        for left in reversed(range(_TRIES)):
            reply = endpoint.ask(question, is_patient=is_patient)
            try:
                self._number(reply)
                return reply
            except ValueError as err:
                if not left:
                    raise EvaluationError(f"{err}, {_TRIES} times") from err
        raise AssertionError("the last try returns or raises")

    def _number(self, reply: str) -> float:
        """Read the verdict.

        Raises:
            ValueError: There is none, or it is not on the scale.
        """
        alone = None if self.verdict else _ALONE.fullmatch(reply)
        found = [alone.group(1)] if alone else re.findall(self._pattern, reply)
        low, high = self.scale
        try:
            number = float(found[-1])
        except (IndexError, ValueError):
            said = repr(" ".join(reply.split())[-80:])
            raise ValueError(
                f"the judge's reply has no verdict ({self._pattern}): {said}"
            ) from None
        if not low <= number <= high:
            raise ValueError(f"expected a verdict from {low:g} to {high:g}, got {number:g}")
        return number

    @property
    def _pattern(self) -> str:
        return self.verdict or _VERDICT

    @property
    def _options(self) -> Mapping[str, object]:
        if self.options is not None:
            return self.options
        return {"temperature": 0} if self.samples == 1 else {}


def _texts(items: Sequence[AnsweredItem]) -> Iterator[tuple[AnsweredItem, str]]:
    for item in items:
        for text in item.texts:
            yield item, text


def _score(verdicts: Sequence[Verdict]) -> OwnScore:
    value = fmean(fmean(one.verdicts) for one in verdicts)
    spreads = [stdev(one.verdicts) for one in verdicts if len(one.verdicts) > 1]
    return OwnScore(value, fmean(spreads) if spreads else None, tuple(verdicts))


def _entry(digest: str) -> Path | None:
    folder = cache_folder("verdicts")
    return None if folder is None else folder / digest[:2] / f"{digest[2:]}.json"


def _kept(digest: str) -> list[str]:
    entry = _entry(digest)
    content = None if entry is None else read_entry(entry)
    return [] if content is None else [str(reply) for reply in json.loads(content)]


def _keep(digest: str, replies: Sequence[str]) -> None:
    if replies and (entry := _entry(digest)) is not None:
        write_entry(entry, json.dumps(replies).encode())
