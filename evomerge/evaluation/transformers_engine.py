"""The default engine: a transformers model in this process, driven by prepared batches."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.evaluation.batches import (
    LM_EVAL_BATCH,
    Batch,
    Pair,
    batch_tokens,
    chunked,
    images_at_once,
    likelihood_batches,
)
from evomerge.evaluation.choosing import Draws
from evomerge.evaluation.decoding import (
    answered,
    can_decode,
    has_plain_cache,
    shortest_window,
)
from evomerge.evaluation.engine import Answer, device_name
from evomerge.evaluation.harness import Instance
from evomerge.evaluation.kinds import (
    Asked,
    Part,
    Requests,
    prepare_requests,
    through_lm_eval,
)
from evomerge.evaluation.language_model import LanguageModel
from evomerge.evaluation.likelihood import log_likelihoods
from evomerge.evaluation.memory import Halving
from evomerge.evaluation.prefix import Family, families, keeps_positions, unrelated
from evomerge.evaluation.reasoning import Tags
from evomerge.evaluation.running import Prompts
from evomerge.evaluation.shared_context import SharedBatch, shared_batches, sharing_requests
from evomerge.evaluation.step_memory import answers_at_once
from evomerge.evaluation.suite import BatchSize

__all__ = ["TransformersEngine"]

_T = TypeVar("_T")
_PARTS = 4  # of a batch of answers that come together, where prompts join


class TransformersEngine:
    """See ``Engine``. Answers and log-likelihoods run in prepared batches.

    Where memory runs out, all batches of the engine are halved for good, down to one sequence, and
    the requests are answered again: floats are then those of the smaller batch size.

    Args:
        model: A causal language model, used as it is at each call.
        tokenizer: Copied.
        batch_size: Sequences per forward pass. A number gives lm-eval's own batches and floats;
            ``auto`` fills each pass with as many tokens as pay off, runs what prompts share once
            and lets prompts join answers that are under way; floats may differ from lm-eval's in
            the last digit, as they do between any two batch sizes.
        tags: See ``MakeEngine``.
        reading: See ``LanguageModel``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: BatchSize,
        tags: Tags | None = None,
        reading: Mapping[str, object] | None = None,
    ) -> None:
        self._model, self._batch_size = model, batch_size
        lm_eval_size = LM_EVAL_BATCH if batch_size == "auto" else batch_size
        self._lm = LanguageModel(model, tokenizer, lm_eval_size, tags, reading or {})
        self._halving = Halving()

    @property
    def language_model(self) -> LanguageModel:
        """See ``Engine``."""
        return self._lm

    @property
    def sloped_model(self) -> PreTrainedModel:
        """See ``Engine``."""
        return self._model

    @property
    def arithmetic(self) -> tuple[object, ...]:
        """See ``Engine``."""
        device = torch.device(self._lm.lm.device)
        halved = self._halving.divisor
        sizes = (self._tokens_per_batch, self._moves)
        return (device_name(device), *sizes, *([halved] if halved > 1 else []))

    def prepare(self, instances: Sequence[Instance]) -> Requests:
        """See ``Engine``."""
        return prepare_requests(instances, self._lm, self)

    @functools.cached_property
    def can_decode(self) -> bool:
        """See ``Runner``."""
        return can_decode(self._model)

    def _size(self, length: int) -> int:
        if self._batch_size == "auto":
            return self._halving.size(self._tokens_per_batch // length)
        return self._halving.size(self._batch_size)

    @functools.cached_property
    def _tokens_per_batch(self) -> int:
        """See ``batch_tokens``.

        Memory that happens to be free must not decide: other batches round differently.
        """
        device, head = torch.device(self._lm.lm.device), self._model.config.get_text_config()
        gpu_bytes = torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None
        return batch_tokens(head.vocab_size, self._model.dtype.itemsize, gpu_bytes)

    @functools.cached_property
    def _moves(self) -> bool:
        """Whether keys and values of a prompt are the same among others, and after others.

        Batches of a given size are lm-eval's own, and positions must mean the same in any batch.
        """
        return self._shares and keeps_positions(self._model)

    @functools.cached_property
    def _shares(self) -> bool:
        """Whether the keys and values of what prompts share may be computed apart from them."""
        return self._batch_size == "auto" and has_plain_cache(self._model)

    def _families(self, prompts: Sequence[list[int]], tasks: Sequence[str]) -> list[Family]:
        if self._moves:
            return families(prompts, tasks)
        return [unrelated(len(prompts))]

    def likelihoods(self, pairs: Sequence[Pair], tasks: Sequence[str]) -> Part:
        """See ``Runner``."""
        return self._halving.part(lambda: self._likelihoods(pairs, tasks))

    def _likelihoods(self, pairs: Sequence[Pair], tasks: Sequence[str]) -> Part:
        fit = all(len(context) + len(scored) <= self._lm.lm.max_length for context, scored in pairs)
        contexts = [context for context, _ in pairs]
        found = self._families(contexts, tasks) if fit else [unrelated(len(pairs))]
        return self._scored(pairs, found)

    def windows(self, pairs: Sequence[Pair]) -> Part:
        """See ``Runner``."""
        return self._halving.part(lambda: self._windows(pairs))

    def _windows(self, pairs: Sequence[Pair]) -> Part:
        # lm-eval sorts windows only within chunks of the batch size.
        step = len(pairs) if self._batch_size == "auto" else self._batch_size
        chunks = [pairs[i : i + step] for i in range(0, len(pairs), step)]
        parts = [self._scored(chunk, [unrelated(len(chunk))]) for chunk in chunks]
        return lambda: [answer for part in parts for answer in part()]

    def _scored(self, pairs: Sequence[Pair], found: Sequence[Family]) -> Part:
        rests = list(pairs)
        for family in found:
            for i in family.requests:
                rests[i] = (pairs[i][0][len(family.prefix) :], pairs[i][1])
        batches = [(family, self._batches(rests, family)) for family in found]
        return lambda: log_likelihoods(self._model, batches, len(pairs))

    def _batches(self, rests: Sequence[Pair], family: Family) -> list[Batch | SharedBatch]:
        """Make lm-eval's own batches, or with ``auto`` those with the least work.

        Args:
            rests: Contexts and continuations, without the prefix of their family.
            family: Whose batches to make.
        """
        lm, start, requests = self._lm.lm, len(family.prefix), family.requests
        max_length = lm.max_length - start
        device, exact = torch.device(lm.device), self._batch_size != "auto"
        groups = sharing_requests(rests, requests, max_length) if self._shares else []
        others = sorted(set(requests) - {request for group in groups for request in group})

        def size(length: int) -> int:
            return self._size(start + length)

        plain = likelihood_batches(rests, others, max_length, size, keep_all=exact, device=device)
        longest = sum(max(len(rests[i][side]) for i in requests) for side in (0, 1))
        sets = self._padded_together(groups, lambda group: len(rests[group[0]][0]), family, longest)
        return [*plain, *(b for one in sets for b in shared_batches(rests, one, size, device))]

    def texts(self, asked: Asked) -> Part:
        """See ``Runner``."""
        return self._halving.part(lambda: self._texts(asked))

    def _texts(self, asked: Asked) -> Part:
        n, config = self._lm.longest_answer(asked.settings), self._model.generation_config
        draws = Draws.of(asked.settings, config) if asked.seeds else None
        found = self._text_families(asked, n)
        longest = max(len(self._lm.tokens(text)) for text in asked.prompts) + n
        rows = self._rows(longest)
        batches = [(family, list(self._prompts(asked, family, n, rows))) for family in found]

        def answer() -> list[Answer]:
            answers: dict[int, Answer] = {}
            said = answered(self._model, batches, asked.stops, draws, rows)
            for request, tokens, seconds in said:
                answers[request] = asked.stops.answer(tokens, seconds)
            return [answers[i] for i in range(len(asked.prompts))]

        return answer

    def images(self, asked: Asked) -> Part:
        """See ``Runner``."""
        size = self._images_at_once(asked) if self._batch_size == "auto" else self._batch_size
        return self._halving.part(
            lambda: through_lm_eval(asked, self._lm, self._halving.size(size))
        )

    def _images_at_once(self, asked: Asked) -> int:
        pairs = zip(asked.prompts, asked.images, strict=True)
        longest = max(self._lm.images.length(prompt, images) for prompt, images in pairs)
        room = self._lm.longest_answer(asked.settings)
        return images_at_once(self._tokens_per_batch, longest + room)

    def _rows(self, longest: int) -> int:
        """See ``write``; 0 where prompts cannot join others."""
        if not self._moves:
            return 0
        return self._halving.size(answers_at_once(self._model, self._tokens_per_batch, longest))

    def _text_families(self, asked: Asked, room: int) -> list[Family]:
        if not self._shares:
            return [unrelated(len(asked.prompts))]
        prompts = [self._lm.padded([text], room)[0][0].tolist() for text in asked.prompts]
        return self._families(prompts, asked.tasks)

    def _prompts(self, asked: Asked, family: Family, room: int, rows: int) -> Iterator[Prompts]:
        """Sort prompts into batches as lm-eval does, and leave out their prefix.

        Those that join others come in quarters of the rows: enough to pay for a pass of their own,
        few enough not to wait for long.
        """
        texts = asked.prompts
        lengths = {i: len(self._lm.tokens(texts[i])) for i in family.requests}
        order = sorted(lengths, key=lambda i: (-lengths[i], texts[i]))
        longest = lengths[order[0]] - len(family.prefix) + room

        def size(length: int) -> int:
            if not rows:
                return self._size(length)
            return min(self._size(max(1, length - room)), max(1, rows // _PARTS))

        for part in self._padded_together(order, lengths.__getitem__, family, longest):
            for cut in chunked([lengths[i] + room for i in part], size):
                tokens, mask = self._lm.padded([texts[i] for i in part[cut]], room=room)
                seeds = tuple(asked.seeds[i] for i in part[cut]) if asked.seeds else ()
                prompts = Prompts(tuple(part[cut]), tokens, mask, room, seeds)
                yield prompts.after(len(family.prefix))

    def _padded_together(
        self, items: Sequence[_T], length: Callable[[_T], int], family: Family, longest: int
    ) -> list[list[_T]]:
        """Part what would be padded after its prefix, if windows slide over that padding.

        Args:
            items: What batches are made of.
            length: Of an item; in a part all have the same.
            family: Whose prefix comes before the padding.
            longest: What windows must see after the prefix, padding included.
        """
        start = len(family.prefix)
        if not start or start + longest <= shortest_window(self._model):
            return [list(items)]
        parts: dict[int, list[_T]] = defaultdict(list)
        for item in items:
            parts[length(item)].append(item)
        return list(parts.values())
