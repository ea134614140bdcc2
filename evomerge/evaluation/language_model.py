"""A live model as lm-eval sees it; with images, ``image_model`` does.

Not public there, and used: how a context and its continuation are tokenised.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import lm_eval.utils
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from typing_extensions import Self

from evomerge.errors import EvaluationError
from evomerge.evaluation.engine_choice import OF_IMAGES
from evomerge.evaluation.harness import GENERATION
from evomerge.evaluation.hygiene import light_collections
from evomerge.evaluation.images import images_of
from evomerge.evaluation.reasoning import Tags, Thinking

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from evomerge.evaluation.image_model import ImageModel

__all__ = ["LanguageModel", "end_tokens", "is_sampling"]

_AS_BY_DEFAULT: Mapping[str, Any] = MappingProxyType({})
_OF_DRAWS = {"temperature", "top_k", "top_p", "min_p"}
OwnAnswer = tuple[str, list[int]]  # text and tokens


def end_tokens(model: PreTrainedModel) -> frozenset[int]:
    """List the tokens after which ``generate`` ends an answer."""
    ends = model.generation_config.eos_token_id
    return frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)


def is_sampling(generation_kwargs: Mapping[str, object]) -> bool:
    """Tell whether lm-eval draws answers with these settings."""
    return bool(normalize_gen_kwargs(dict(generation_kwargs))["do_sample"])


def _is_hidden(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether padding after an answer disappears from its text."""
    return tokenizer.pad_token_id in tokenizer.all_special_ids


class LanguageModel:
    """A live model and its tokenizer the way lm-eval sees them: tokens, prompts, its own answers.

    Args:
        model: Used as it is at each call; put into evaluation mode.
        tokenizer: Copied, because lm-eval may give it a padding token.
        batch_size: Sequences per forward pass when lm-eval answers itself.
        tags: Of reasoning before answers; ``None`` takes what is said for the answer.
        reading: What else lm-eval is told of prompts; see ``EngineChoice``.

    Attributes:
        thinking: Tells reasoning from answers.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        tags: Tags | None = None,
        reading: Mapping[str, Any] = _AS_BY_DEFAULT,
    ) -> None:
        from lm_eval.models.huggingface import HFLM  # slow to import

        self.thinking = None if tags is None else Thinking(tokenizer, tags)
        # Said, because lm-eval does not take models of vision and language for causal ones.
        self.lm = HFLM(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),
            batch_size=batch_size,
            backend="causal",
            **{key: value for key, value in reading.items() if key not in OF_IMAGES},
        )
        self._reading = reading
        self._encode: Callable[[str], list[int]] = self.lm.tok_encode
        # The same prompts come again for every candidate: tokenise each text once.
        self.lm.tok_encode = functools.cache(self.lm.tok_encode)

    @classmethod
    def without_parameters(
        cls,
        tokenizer: PreTrainedTokenizerBase,
        config: Any,
        reading: Mapping[str, Any] = _AS_BY_DEFAULT,
    ) -> Self:
        """Make what can shape and measure prompts, but not answer them.

        Args:
            tokenizer: Copied.
            config: Has the settings of the model as attributes.
            reading: See the class.
        """
        ends = getattr(config.get_text_config(), "eos_token_id", None)
        model: Any = SimpleNamespace(
            config=config,
            device=torch.device("meta"),
            dtype=torch.float32,
            generation_config=SimpleNamespace(eos_token_id=ends),
        )
        return cls(model, tokenizer, 1, reading=reading)

    @property
    def reads_images(self) -> bool:
        """Whether the model has a token in whose place images come."""
        keys = ("image_token_id", "image_token_index")
        return any(getattr(self.lm.config, key, None) is not None for key in keys)

    @functools.cached_property
    def images(self) -> ImageModel:
        """The model as it reads images.

        Raises:
            EvaluationError: See ``ImageModel``.
        """
        from evomerge.evaluation.image_model import ImageModel  # slow to import

        lm = self.lm
        return ImageModel(lm.model, lm.tokenizer, lm.batch_size, self._reading)

    def in_chat(self, arguments: Mapping[str, object]) -> Callable[..., str]:
        """Make what puts the turns of a chat into the model's template, with arguments for it."""
        lm = copy.copy(self.lm)
        lm.chat_template_args = dict(arguments)
        apply: Callable[..., str] = lm.apply_chat_template
        return apply

    def longest_answer(self, generation_kwargs: Mapping[str, object]) -> int:
        """Tell how many tokens a request may generate, by any of the names for that setting."""
        return int(normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks)["max_gen_toks"])

    def tokens(self, text: str) -> list[int]:
        """Tokenise a text the way prompts are."""
        tokens: list[int] = self.lm.tok_encode(text)
        return tokens

    def answer_tokens(self, text: str) -> list[int]:
        """Tokenise what a candidate has said, which no other may say: nothing is kept."""
        return self._encode(text)

    def length(self, request: Instance) -> int:
        """Count the tokens of a prompt with what is scored after it; the last one is not read."""
        if images := images_of(request):
            return self.images.length(request.args[0], images)
        if request.request_type == GENERATION:
            return len(self.tokens(request.args[0]))
        return sum(map(len, self.pair(*request.args))) - 1

    def padded(self, texts: Sequence[str], room: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokenise prompts of one batch, padded on the left, leaving room for the answers.

        Returns:
            Tokens and mask, both (texts, length) int64.
        """
        limit = self.lm.max_length - room
        tokens, mask = self.lm.tok_batch_encode(list(texts), left_truncate_len=limit)
        return tokens.to(self.lm.device), mask.to(self.lm.device)

    def pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Tokenise a context and its continuation; an empty context becomes the prefix token.

        Raises:
            EvaluationError: There is nothing to score.
        """
        if context:
            tokens, scored = self.lm._encode_pair(context, continuation)
        else:
            scored = self.lm.tok_encode(continuation, add_special_tokens=False)
            tokens = [self.lm.prefix_token_id]
            if scored[:1] == tokens:
                scored = scored[1:]
        if not scored:
            raise EvaluationError(
                f"expected a continuation of at least one token, got {continuation!r} after "
                f"{context[-40:]!r}"
            )
        return tokens, scored

    def windows(self, text: str) -> list[tuple[list[int], list[int]]]:
        """Cut a text into windows of the model's context, every token predicted once."""
        windows = lm_eval.utils.get_rolling_token_windows(
            token_list=self.lm.tok_encode(text),
            prefix_token=self.lm.prefix_token_id,
            max_seq_len=self.lm.max_length,
            context_len=1,
        )
        return [lm_eval.utils.make_disjoint_window(window) for window in windows]

    def begins_reasoning(self, prompt: str) -> bool:
        """Tell whether a prompt has begun the reasoning that comes before an answer."""
        return self.thinking is not None and self.thinking.tags.begin_in(prompt)

    def is_plain(self, generation_kwargs: Mapping[str, object]) -> bool:
        """Tell whether a request takes likely tokens until a stop string, and nothing else.

        They are the likeliest, or drawn after what ``_OF_DRAWS`` says. Also required: the model
        stops at the tokenizer's end token, and no stop string lies inside another, so that an
        answer cut at once is the answer cut later.
        """
        settings = dict(normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks))
        known = {"until", "max_gen_toks", "seed"} | (_OF_DRAWS if settings["do_sample"] else set())
        plain = settings.pop("do_sample") or settings.pop("temperature", 0.0) == 0.0
        stops = self.stop_strings(generation_kwargs)
        nested = any(a in b[1:-1] for a in stops for b in stops if a)
        tokenizer = self.lm.tokenizer
        ends = tokenizer.eos_token_id in end_tokens(self.lm.model)
        return plain and set(settings) <= known and not nested and ends and _is_hidden(tokenizer)

    def stop_strings(self, generation_kwargs: Mapping[str, object]) -> list[str]:
        """List the strings that end an answer, the end token's text last."""
        end = self.lm.tok_decode(self.lm.eot_token_id, skip_special_tokens=False)
        settings = normalize_gen_kwargs(generation_kwargs, self.lm.max_gen_toks)
        stops: list[str] = handle_stop_sequences(settings.get("until"), eos=end)
        return stops

    def ends(self, generation_kwargs: Mapping[str, object]) -> tuple[int, ...]:
        """List tokens that may end an answer: end tokens, and what stop strings begin with."""
        letter = self.lm.tok_encode("a", add_special_tokens=False)
        found = dict.fromkeys(sorted(end_tokens(self.lm.model)))
        for stop in self.stop_strings(generation_kwargs):
            alone = self.lm.tok_encode(stop, add_special_tokens=False)
            after = self.lm.tok_encode(f"a{stop}", add_special_tokens=False)
            found |= dict.fromkeys(alone[:1])
            if after[: len(letter)] == letter:  # else the letter and the stop are one token
                found |= dict.fromkeys(after[len(letter) :][:1])
        return tuple(found)

    def decoded(self, tokens: Sequence[int]) -> str:
        """Turn the tokens of an answer into text as ``generate`` does."""
        text: str = self.lm.tok_decode(list(tokens))
        return text

    def cut(self, text: str, stops: Sequence[str]) -> str:
        """Cut a decoded answer at its stop strings."""
        kept: str = postprocess_generated_text(text, list(stops), None)
        return kept

    def own_answers(
        self,
        prompts: Sequence[str],
        settings: Mapping[str, object],
        images: Sequence[Sequence[Any]] = (),
        at_once: int | None = None,
    ) -> list[OwnAnswer]:
        """Let lm-eval run the model itself, slowly.

        Args:
            prompts: All of them are answered with the same settings.
            settings: See ``generation_kwargs`` of tasks; its draws have no seed of their own.
            images: Of each prompt, if they have any.
            at_once: How many prompts; ``None``: the batch size.

        Returns:
            What lm-eval takes for the answer, and the tokens that it was made of: a batch may go on
            after an answer is finished.
        """
        lm = copy.copy(self.images.lm if images else self.lm)
        tokens = _Tokens(lm.tok_decode)
        lm.tok_decode, lm.cache_hook = tokens.decode, tokens
        lm.batch_size_per_gpu = at_once or lm.batch_size
        known = {key: value for key, value in settings.items() if key != "seed"}
        arguments: list[tuple[object, ...]] = [(prompt, dict(known)) for prompt in prompts]
        if images:
            pairs = zip(arguments, images, strict=True)
            arguments = [(*one, {"visual": [*own]}) for one, own in pairs]
        requests = [_generating(one) for one in arguments]
        with light_collections():
            answers = lm.generate_until(requests, disable_tqdm=True)
        _forget_places(lm.model)
        return [(text, tokens.take(prompt)) for prompt, text in zip(prompts, answers, strict=True)]


def _forget_places(model: PreTrainedModel) -> None:
    """Let a model forget by how much the images of the last prompts moved the places of text.

    Those of Qwen's kind move by it whatever is read after a cache, in other prompts, too.
    """
    module: Any
    for module in model.modules():
        if getattr(module, "rope_deltas", None) is not None:
            module.rope_deltas = None


class _Tokens:
    """Hears of each answer of lm-eval's model: as it is decoded, and as it is kept."""

    def __init__(self, decode: Callable[..., str]) -> None:
        self._decode, self._last = decode, list[int]()
        self._of: dict[str, deque[list[int]]] = defaultdict(deque)

    def decode(self, tokens: list[int], **settings: bool) -> str:
        self._last = tokens
        return self._decode(tokens, **settings)

    def add_partial(self, kind: str, request: tuple[str, object], answer: str) -> None:
        self._of[request[0]].append(self._last)

    def take(self, prompt: str) -> list[int]:
        """The tokens of the first answer to a prompt that is not taken yet."""
        return self._of[prompt].popleft()


def _generating(arguments: tuple[object, ...]) -> Instance:
    return Instance(
        request_type=GENERATION, doc={}, arguments=arguments, idx=0, metadata=("", 0, 1)
    )
