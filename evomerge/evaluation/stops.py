"""When an answer is finished, and what it then says."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from evomerge.evaluation.engine import Answer
from evomerge.evaluation.language_model import LanguageModel, end_tokens
from evomerge.evaluation.reasoning import Said

__all__ = ["Stops"]


class Stops:
    """Tells when an answer is finished: an end token, or a stop string in its text.

    Stop strings do not end reasoning, as in lm-eval's vLLM: they often occur in it.

    Args:
        lm: Decodes answers.
        settings: Of the requests: their stop strings.
        is_begun: Whether the prompts have begun the reasoning.

    Attributes:
        end_tokens: Tokens that end an answer.
        strings: Stop strings.
    """

    def __init__(
        self, lm: LanguageModel, settings: Mapping[str, object], *, is_begun: bool = False
    ) -> None:
        self._lm, self._is_begun = lm, is_begun
        self.end_tokens = end_tokens(lm.lm.model)
        self.strings = [string for string in lm.stop_strings(settings) if string]
        last = {string[-1] for string in self.strings}
        self._endings = last | {"\N{REPLACEMENT CHARACTER}"}  # part of a character of many bytes
        self._may_end: Callable[[tuple[int, ...]], bool] = functools.lru_cache(1 << 16)(
            self._ends_some_string
        )

    def is_finished(self, tokens: Sequence[int]) -> bool:
        """Tell whether the last of these tokens has finished an answer."""
        return self._is_end(tokens, len(tokens))

    def until_finished(self, tokens: Sequence[int]) -> Sequence[int]:
        """Leave out what a batch went on with after an answer was finished."""
        ends = (n for n in range(1, len(tokens)) if self._is_end(tokens, n))
        return tokens[: next(ends, len(tokens))]

    def _is_end(self, tokens: Sequence[int], n: int) -> bool:
        """Whether the first n tokens are a finished answer, if fewer are not."""
        if tokens[n - 1] in self.end_tokens:
            return True
        if not self._may_end(tuple(tokens[max(0, n - 2) : n])):
            return False
        said = tokens[:n]
        if self._is_open(said):
            return False
        text = self._said(said).answer
        return any(string in text for string in self.strings)

    def answer(self, tokens: Sequence[int], seconds: float) -> Answer:
        """Make an answer of its tokens, the one that finished it last."""
        said = self._said(tokens)
        is_truncated = said.is_open or not self.is_finished(tokens)
        text = self._lm.cut(said.answer, self.strings)
        return Answer(text, len(tokens), seconds, said.reasoning, is_truncated)

    def _is_open(self, tokens: Sequence[int]) -> bool:
        thinking = self._lm.thinking
        return thinking is not None and thinking.is_open(tokens, is_begun=self._is_begun)

    def _said(self, tokens: Sequence[int]) -> Said:
        if self._lm.thinking is None:
            return Said("", self._lm.decoded(tokens))
        return self._lm.thinking.said(tokens, is_begun=self._is_begun)

    def _ends_some_string(self, tokens: tuple[int, ...]) -> bool:
        """Whether the last of a few tokens may complete a stop string: cheap, and rarely so."""
        text = self._lm.decoded(tokens)
        return any(character in text for character in self._endings)
