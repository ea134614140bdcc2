"""Reasoning before the answer: which tags enclose it, and what of an answer comes after them.

To add a family's tags, add a row to ``FAMILIES``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["FAMILIES", "ReasoningChoice", "Said", "Tags", "Thinking", "tags_of", "unwritable"]

# ``auto`` takes the tags of the tokenizer, ``keep`` leaves answers whole; or a pair of tags.
ReasoningChoice = Literal["auto", "keep"] | tuple[str, str]


@dataclass(frozen=True)
class Tags:
    """What encloses reasoning.

    Attributes:
        start: Said by the model, or the last thing in the prompt.
        end: The answer follows the last one.
    """

    start: str
    end: str

    @property
    def both(self) -> tuple[str, str]:
        """The pair."""
        return self.start, self.end

    def begin_in(self, prompt: str) -> bool:
        """Tell whether a prompt ends with the start tag, as some chat templates write it."""
        return prompt.rstrip().endswith(self.start)


FAMILIES = (
    Tags("<think>", "</think>"),  # DeepSeek-R1, Qwen3, SmolLM3, GLM-4.5, Olmo 3, Phi-4-reasoning
    Tags("[THINK]", "[/THINK]"),  # Magistral, Ministral 3
    Tags("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # GPT-OSS
    Tags("<seed:think>", "</seed:think>"),  # Seed-OSS
    Tags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    Tags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    Tags("<thought>", "</thought>"),  # EXAONE Deep
    Tags("◁think▷", "◁/think▷"),  # Kimi
)


@dataclass(frozen=True)
class Said:
    """What a model said to one prompt.

    Attributes:
        reasoning: Everything up to the answer, with the tags that are text.
        answer: What follows; empty while the reasoning goes on.
        is_open: Whether the reasoning was begun and not ended.
    """

    reasoning: str
    answer: str
    is_open: bool = False


def tags_of(tokenizer: PreTrainedTokenizerBase, choice: ReasoningChoice) -> Tags | None:
    """Find the tags that reasoning is in.

    Args:
        tokenizer: With ``auto``, a family whose two tags are in its chat template, or are tokens.
        choice: See ``ReasoningChoice``.

    Returns:
        ``None`` where answers are left whole.
    """
    if choice == "keep":
        return None
    if choice != "auto":
        return Tags(*choice)
    templates, vocabulary = str(tokenizer.chat_template or ""), tokenizer.get_vocab()
    written = [tags for tags in FAMILIES if not unwritable(tokenizer, tags)]
    in_template = (tags for tags in written if all(tag in templates for tag in tags.both))
    in_vocabulary = (tags for tags in written if all(tag in vocabulary for tag in tags.both))
    return next(in_template, None) or next(in_vocabulary, None)


def unwritable(tokenizer: PreTrainedTokenizerBase, tags: Tags) -> list[str]:
    """List the tags that a tokenizer has no tokens for, so that no answer holds them."""
    unknown = tokenizer.unk_token_id
    return [tag for tag in tags.both if unknown in _tokens(tokenizer, tag)]


class Thinking:
    """Tells reasoning from answers.

    What counts as the answer is what lm-eval's ``think_end_token`` leaves: what follows the last
    end tag, without leading blanks. Tags that vanish when tokens are decoded are found as tokens,
    others as text. Unlike there, reasoning that was begun and never ended is no answer.

    Args:
        tokenizer: Decodes answers.
        tags: Around the reasoning.

    Attributes:
        tags: Of these arguments.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, tags: Tags) -> None:
        self._tokenizer, self.tags = tokenizer, tags
        self._start, self._end = (_tokens(tokenizer, tag) for tag in tags.both)
        self._start_is_text = tags.start in self._text(self._start)
        self._end_is_text = tags.end in self._text(self._end)

    def is_open(self, tokens: Sequence[int], *, is_begun: bool) -> bool:
        """Tell whether the reasoning goes on; without decoding it where tags are tokens."""
        if len(self._start) == len(self._end) == 1:
            return (is_begun or self._start[0] in tokens) and self._end[0] not in tokens
        return self.said(tokens, is_begun=is_begun).is_open

    def said(self, tokens: Sequence[int], *, is_begun: bool) -> Said:
        """Part the tokens of an answer.

        Args:
            tokens: Everything the model said.
            is_begun: Whether the prompt has begun the reasoning.
        """
        text = self._text(tokens)
        answer = self._after_reasoning(tokens, text)
        if answer is not None:
            return Said(text[: len(text) - len(answer)], answer)
        if is_begun or self._is_begun(tokens, text):
            return Said(text, "", is_open=True)
        return Said("", text)

    def _after_reasoning(self, tokens: Sequence[int], text: str) -> str | None:
        """What follows the last end tag; ``None`` without one."""
        if self._end_is_text:
            _, end, after = text.rpartition(self.tags.end)
            return after.lstrip() if end else None
        place = _last(tokens, self._end)
        return None if place is None else self._text(tokens[place:]).lstrip()

    def _is_begun(self, tokens: Sequence[int], text: str) -> bool:
        if self._start_is_text:
            return self.tags.start in text
        return _last(tokens, self._start) is not None

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))


def _tokens(tokenizer: PreTrainedTokenizerBase, tag: str) -> tuple[int, ...]:
    known = tokenizer.get_vocab().get(tag)
    return tuple(tokenizer.encode(tag, add_special_tokens=False)) if known is None else (known,)


def _last(tokens: Sequence[int], tag: tuple[int, ...]) -> int | None:
    """Find the place after the last tag."""
    n = len(tag)
    starts = range(len(tokens) - n, -1, -1)
    return next((i + n for i in starts if tuple(tokens[i : i + n]) == tag), None)
