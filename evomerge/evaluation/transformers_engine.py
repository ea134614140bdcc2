"""The default engine: a transformers model in this process, driven by prepared batches."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.batches import Batch, Pair, chunked, likelihood_batches
from evomerge.evaluation.decoding import (
    Prompts,
    Stops,
    can_decode,
    decode_greedily,
    has_plain_cache,
)
from evomerge.evaluation.engine import Answer
from evomerge.evaluation.harness import Instance, LanguageModel, end_tokens
from evomerge.evaluation.kinds import Part, Requests, prepare_requests
from evomerge.evaluation.likelihood import log_likelihoods
from evomerge.evaluation.shared_context import SharedBatch, shared_batches, sharing_requests
from evomerge.evaluation.suite import BatchSize

__all__ = ["TransformersEngine"]

_LM_EVAL_BATCH = 64
_TOKENS_PER_BATCH = 16384  # more per forward pass gain nothing
_LOGITS_BYTES = 1 << 30  # what the logits of a pass may take on CPU, where workers share memory


class TransformersEngine:
    """See ``Engine``. Greedy answers and log-likelihoods run in prepared batches.

    Args:
        model: A causal language model, used as it is at each call.
        tokenizer: Copied.
        batch_size: Sequences per forward pass. A number gives lm-eval's own batches and floats;
            ``auto`` fills each pass with as many tokens as pay off, and floats may differ from
            lm-eval's in the last digit, as they do between any two batch sizes.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: BatchSize
    ) -> None:
        self._model, self._batch_size = model, batch_size
        lm_eval_size = _LM_EVAL_BATCH if batch_size == "auto" else batch_size
        self._lm = LanguageModel(model, tokenizer, lm_eval_size)

    @property
    def language_model(self) -> LanguageModel:
        """See ``Engine``."""
        return self._lm

    def prepare(self, instances: Sequence[Instance]) -> Requests:
        """See ``Engine``."""
        return prepare_requests(instances, self._lm, self)

    @functools.cached_property
    def can_decode(self) -> bool:
        """See ``Runner``."""
        return can_decode(self._model)

    def _size(self, length: int) -> int:
        if self._batch_size == "auto":
            return max(1, self._tokens_per_batch // length)
        return self._batch_size

    @functools.cached_property
    def _tokens_per_batch(self) -> int:
        """How many tokens pay off in one forward pass and fit, with all their logits, in memory."""
        device, head = torch.device(self._lm.lm.device), self._model.config.get_text_config()
        is_gpu = device.type == "cuda"
        room = torch.cuda.mem_get_info(device)[0] // 8 if is_gpu else _LOGITS_BYTES
        bytes_per_token: int = head.vocab_size * self._model.dtype.itemsize
        return min(_TOKENS_PER_BATCH, room // bytes_per_token)

    def _batches(self, pairs: Sequence[Pair]) -> list[Batch | SharedBatch]:
        """Make lm-eval's own batches, or with ``auto`` those with the least work."""
        lm, exact = self._lm.lm, self._batch_size != "auto"
        device = torch.device(lm.device)
        sharing = not exact and has_plain_cache(self._model)
        groups = sharing_requests(pairs, lm.max_length) if sharing else []
        others = sorted(set(range(len(pairs))) - {request for group in groups for request in group})
        return [
            *likelihood_batches(
                pairs, others, lm.max_length, self._size, keep_all=exact, device=device
            ),
            *shared_batches(pairs, groups, self._size, device),
        ]

    def likelihoods(self, pairs: Sequence[Pair]) -> Part:
        """See ``Runner``."""
        batches = self._batches(pairs)
        return lambda: log_likelihoods(self._model, batches, len(pairs))

    def windows(self, pairs: Sequence[Pair]) -> Part:
        """See ``Runner``."""
        # lm-eval sorts windows only within chunks of the batch size.
        step = len(pairs) if self._batch_size == "auto" else self._batch_size
        parts = [self.likelihoods(pairs[i : i + step]) for i in range(0, len(pairs), step)]
        return lambda: [answer for part in parts for answer in part()]

    def greedy(self, texts: Sequence[str], settings: Mapping[str, object]) -> Part:
        """See ``Runner``."""
        strings, n = self._lm.stop_strings(settings), self._lm.longest_answer(settings)
        stops = Stops(self._lm.lm.tokenizer, strings, end_tokens(self._model))
        order = sorted(range(len(texts)), key=lambda i: (-len(self._lm.tokens(texts[i])), texts[i]))
        lengths = [len(self._lm.tokens(texts[i])) + n for i in order]
        batches = []
        for part in chunked(lengths, self._size):
            tokens, mask = self._lm.padded([texts[i] for i in order[part]], room=n)
            batches.append(Prompts(tuple(order[part]), tokens, mask, n))

        def answer() -> list[Answer]:
            answers: dict[int, Answer] = {}
            for batch in batches:
                start = time.perf_counter()
                decoded = decode_greedily(self._model, batch, stops)
                seconds = (time.perf_counter() - start) / len(decoded)
                for request, tokens in zip(batch.requests, decoded, strict=True):
                    text = self._lm.cut(stops.text(tokens), strings)
                    answers[request] = Answer(text, len(tokens), seconds)
            return [answers[i] for i in range(len(texts))]

        return answer
