"""Answers that are being written, a row of a batch each: rows leave and others join at any step."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from evomerge.evaluation.cached import append_rows, drop_columns, select_rows, stacked
from evomerge.evaluation.choosing import Chooser
from evomerge.evaluation.prefix import PrefixCache
from evomerge.evaluation.stops import Stops

__all__ = ["Prompts", "Written", "write"]


@dataclass(frozen=True)
class Prompts:
    """Prompts that are run together.

    Attributes:
        requests: Position of each prompt among the requests.
        tokens: (sequences, length) int64, padded on the left.
        mask: (sequences, length) int64, 1 where there is a prompt.
        max_tokens: How many tokens each answer may take.
        seeds: Of the draws of each answer, where tokens are drawn.
    """

    requests: tuple[int, ...]
    tokens: torch.Tensor
    mask: torch.Tensor
    max_tokens: int
    seeds: tuple[int, ...] = ()

    def after(self, length: int) -> Prompts:
        """Leave out the first tokens of each prompt; padding moves behind them."""
        kept = self.tokens.shape[1] - length
        return replace(self, tokens=self.tokens[:, length:], mask=self.mask[:, :kept])


@dataclass
class Written:
    """One answer.

    Attributes:
        request: Position of its prompt among the requests.
        number: Which of all prompts it answers, in their order.
        max_tokens: How many it may take.
        tokens: So far; the one that ended it included.
        seconds: Its share of the passes so far.
    """

    request: int
    number: int
    max_tokens: int
    tokens: list[int]
    seconds: float = 0.0


@torch.no_grad()
def write(
    model: PreTrainedModel,
    prompts: Sequence[Prompts],
    prefix: PrefixCache,
    stops: Stops,
    choose: Chooser,
    rows: int,
) -> Iterator[Written]:
    """Answer prompts token by token, and hand out each answer when it is finished.

    A step costs much for the first answer and little for each more, so that the next prompts join
    a batch as soon as they have room in it.

    Args:
        model: A causal language model with a key-value cache.
        prompts: In the order in which they are answered.
        prefix: What comes before each prompt.
        stops: When an answer ends.
        choose: Which token comes next; it is given the numbers of the answers.
        rows: How many answers may be under way for others to join them; 0 answers all prompts
            that are run together by themselves.
    """
    waiting, number = deque(prompts), 0
    running: _Running | None = None
    while waiting or running:
        if waiting and (running is None or len(running) + len(waiting[0].requests) <= rows):
            new = _Running(waiting.popleft(), number, prefix)
            number += len(new)
            new.step(model, choose)
            yield from new.leave(stops, trim=rows > 0)
            if running and new:
                running.join(new)
            elif new:
                running = new
        elif running:
            running.step(model, choose)
            yield from running.leave(stops, trim=rows > 0)
        running = running or None  # without answers, it lets go of its keys and values


class _Running:
    """Rows of a batch: their tokens, and what the model keeps of them."""

    def __init__(self, prompts: Prompts, number: int, prefix: PrefixCache) -> None:
        self._rows = [
            Written(request, n, prompts.max_tokens, [])
            for n, request in enumerate(prompts.requests, number)
        ]
        self._tokens = prompts.tokens
        self._cache, self._mask, self._positions = prefix.before(prompts.mask)

    def __len__(self) -> int:
        return len(self._rows)

    def step(self, model: PreTrainedModel, choose: Chooser) -> None:
        """Run the model, and write the next token of every answer."""
        start = time.perf_counter()
        logits = model(
            self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        chosen = choose(logits[:, -1], [row.number for row in self._rows])
        self._tokens, self._positions = chosen[:, None], self._positions[:, -1:] + 1
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self), 1)], dim=-1)
        tokens = chosen.tolist()
        seconds = (time.perf_counter() - start) / len(self)
        for row, token in zip(self._rows, tokens, strict=True):
            row.tokens.append(token)
            row.seconds += seconds

    def leave(self, stops: Stops, *, trim: bool) -> list[Written]:
        """Let go of the answers that are finished.

        Args:
            stops: When an answer ends.
            trim: Let go of the columns that only they needed, too: other rows joined these, which
                would else be wider than any prompt with its answer. Floats are then no longer those
                of a batch that is answered to its end.
        """
        finished = [row for row in self._rows if _is_finished(row, stops)]
        if not finished:
            return []
        gone = {row.number for row in finished}
        going = [k for k, row in enumerate(self._rows) if row.number not in gone]
        rows = torch.tensor(going, device=self._tokens.device, dtype=torch.long)
        select_rows(self._cache, rows)
        self._rows = [self._rows[k] for k in going]
        self._tokens, self._mask = self._tokens[rows], self._mask[rows]
        self._positions = self._positions[rows]
        if trim:
            self._drop_padding()
        return finished

    def join(self, others: _Running) -> None:
        """Take in the rows of another batch; both have written a token that is not yet run."""
        append_rows(self._cache, others._cache)
        self._rows += others._rows
        self._tokens = torch.cat([self._tokens, others._tokens])
        self._positions = torch.cat([self._positions, others._positions])
        self._mask = stacked(self._mask, others._mask, dim=-1)

    def _drop_padding(self) -> None:
        """Leave out the columns that are padding in every row."""
        n = int(self._mask.any(dim=0).int().argmax())
        drop_columns(self._cache, n)
        self._mask = self._mask[:, n:]


def _is_finished(row: Written, stops: Stops) -> bool:
    return len(row.tokens) >= row.max_tokens or stops.is_finished(row.tokens)
