"""A live model that reads images, as lm-eval sees it; slow to import."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lm_eval.models.hf_vlms import HFMultimodalLM
from lm_eval.models.utils import resize_image

from evomerge.errors import EvaluationError
from evomerge.evaluation.images import PLACEHOLDER, with_pixels
from evomerge.fingerprint import digest_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

__all__ = ["ImageModel"]


class ImageModel:
    """What lm-eval's ``hf-multimodal`` makes of a live model.

    Args:
        model: Used as it is at each call.
        tokenizer: Its folder has the files of the processor, too.
        batch_size: Prompts per forward pass.
        reading: See ``LanguageModel``.

    Raises:
        EvaluationError: There is no processor, or the config names no token for images.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        reading: Mapping[str, Any],
    ) -> None:
        self.lm = _Multimodal(
            pretrained=model,
            tokenizer=tokenizer,
            batch_size=batch_size,
            backend="causal",
            **reading,
        )
        self._lengths: dict[str, int] = {}
        self._places: dict[str, int] = {}

    def length(self, prompt: str, images: Sequence[Any]) -> int:
        """Count the tokens of a prompt, those that stand for its images among them.

        Raises:
            EvaluationError: The processor cannot read it.
        """
        key = digest_of(prompt, with_pixels(images))
        if key not in self._lengths:
            self._lengths[key] = self._length(prompt, images)
        return self._lengths[key]

    def _length(self, prompt: str, images: Sequence[Any]) -> int:
        try:
            side = self.lm.image_max_side
            sized = [resize_image(image, max_dimension=side) for image in images]
            encoded = self.lm.tok_batch_multimodal_encode([prompt], [sized])
        except Exception as err:  # every class has its own ways to refuse a prompt
            reason = " ".join(str(err).split())
            text = f"{type(self.lm.processor).__name__} cannot read a prompt with images: {reason}"
            raise EvaluationError(text) from err
        return int(encoded["input_ids"].shape[1])

    def in_chat(self) -> Callable[..., str]:
        """Make what puts the turns of a chat into the processor's template."""
        lm = copy.copy(self.lm)  # it remembers that prompts were in a chat, as others are not

        def apply(turns: list[dict[str, Any]], **settings: object) -> str:
            n = sum(str(turn["content"]).count(PLACEHOLDER) for turn in turns)
            prompt: str = lm.apply_chat_template(turns, **settings)
            self._places[prompt] = n
            return prompt

        return apply

    def n_places(self, prompt: str) -> int:
        """Count the places for images in a prompt; a template writes them its own way."""
        return self._places.get(prompt, prompt.count(PLACEHOLDER))

    @functools.cached_property
    def content(self) -> list[object]:
        """How images become tokens, for a digest."""
        processor = self.lm.processor
        parts = [type(getattr(processor, name)).__qualname__ for name in processor.get_attributes()]
        settings = json.loads(processor.to_json_string())
        return [version("pillow"), parts, settings, self.lm.image_token]


class _Multimodal(HFMultimodalLM):  # type: ignore[misc]
    def _create_tokenizer(
        self, pretrained: object, tokenizer: PreTrainedTokenizerBase, **_: object
    ) -> None:
        """Load the processor from where the tokenizer is, not where a live model was made."""
        self.processor = _processor(tokenizer.name_or_path, self.pixels)
        self.tokenizer = self.processor.tokenizer


def _processor(folder: str, pixels: Mapping[str, int]) -> ProcessorMixin:
    from transformers import AutoProcessor, ProcessorMixin

    try:
        found = AutoProcessor.from_pretrained(folder, **pixels)
    except Exception as err:  # every class has its own ways to refuse files
        reason = " ".join(str(err).split())
        text = f"expected {folder} to have a processor for images: {reason}"
        raise EvaluationError(text) from err
    if not isinstance(found, ProcessorMixin):
        text = f"expected {folder} to have a processor for images, got {type(found).__name__} alone"
        raise EvaluationError(f"{text}; copy preprocessor_config.json there, too")
    return found
