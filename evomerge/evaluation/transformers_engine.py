"""The default engine: a transformers model in this process, driven by prepared batches."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

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
from evomerge.evaluation.likelihood import log_likelihoods
from evomerge.evaluation.shared_context import SharedBatch, shared_batches, sharing_requests
from evomerge.evaluation.suite import BatchSize

__all__ = ["TransformersEngine"]

_LM_EVAL_BATCH = 64
_TOKENS_PER_BATCH = 16384  # more per forward pass gain nothing
_LOGITS_BYTES = 1 << 30  # what the logits of a pass may take on CPU, where workers share memory

Part = Callable[[], list[Answer]]  # answers the requests of one kind, in order


class TransformersEngine:
    """See ``Engine``. Greedy answers and log-likelihoods run here, other kinds through lm-eval.

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
        kinds: dict[str, list[Instance]] = defaultdict(list)
        for instance in instances:
            kinds[_kind(instance)] += [instance] * instance.repeats
        parts = {kind: self._part(kind, requests) for kind, requests in kinds.items()}
        return Requests(tuple(instances), parts)

    def _part(self, kind: str, requests: Sequence[Instance]) -> Part:
        match requests[0].request_type:
            case "loglikelihood":
                return self._likelihoods([self._lm.pair(*request.args) for request in requests])
            case "loglikelihood_rolling":
                return self._rolling([request.args[0] for request in requests])
            case "generate_until" if self._is_greedy(requests[0].args[1]):
                return self._greedy([request.args[0] for request in requests], requests[0].args[1])
            case request_type:
                return self._through_lm_eval(request_type, requests)

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

    def _likelihoods(self, pairs: Sequence[Pair]) -> Part:
        batches = self._batches(pairs)
        return lambda: log_likelihoods(self._model, batches, len(pairs))

    def _rolling(self, texts: Sequence[str]) -> Part:
        windows = [self._lm.windows(text) for text in texts]
        pairs = [pair for of_one in windows for pair in of_one]
        # lm-eval sorts windows only within chunks of the batch size.
        step = len(pairs) if self._batch_size == "auto" else self._batch_size
        chunks = [pairs[i : i + step] for i in range(0, len(pairs), step)]
        parts = [self._likelihoods(chunk) for chunk in chunks]

        def answer() -> list[Answer]:
            answers = iter([answer for part in parts for answer in part()])
            return [_total(list(islice(answers, len(of_one)))) for of_one in windows]

        return answer

    def _is_greedy(self, settings: Mapping[str, object]) -> bool:
        return self._lm.is_plain_greedy(settings) and can_decode(self._model)

    def _greedy(self, texts: Sequence[str], settings: Mapping[str, object]) -> Part:
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

    def _through_lm_eval(self, request_type: str, requests: Sequence[Instance]) -> Part:
        def answer() -> list[Answer]:
            start = time.perf_counter()
            responses = self._lm.own_answers(request_type, requests)
            seconds = (time.perf_counter() - start) / len(responses)
            return [Answer(r, len(self._lm.tokens(str(r))), seconds) for r in responses]

        return answer


@dataclass(frozen=True)
class Requests:
    """See ``PreparedRequests``."""

    instances: tuple[Instance, ...]
    parts: Mapping[str, Part]

    def run(self) -> list[list[Answer]]:
        """See ``PreparedRequests``."""
        answers: dict[str, Iterator[Answer]] = {k: iter(part()) for k, part in self.parts.items()}
        return [list(islice(answers[_kind(i)], i.repeats)) for i in self.instances]


def _kind(instance: Instance) -> str:
    """Name what can be batched together: generation with the same settings, or likelihoods."""
    if instance.request_type != "generate_until":
        return str(instance.request_type)
    return f"generate_until {instance.args[1]}"


def _total(answers: Sequence[Answer]) -> Answer:
    """The log-likelihood of a text in windows."""
    return Answer(
        sum(answer.response[0] for answer in answers),  # type: ignore[index]
        sum(answer.tokens for answer in answers),
        sum(answer.seconds for answer in answers),
    )
