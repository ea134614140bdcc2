"""Which engine answers the prompts, and what it is told: the ``engine`` key of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from evomerge.errors import Fault, brief, did_you_mean

__all__ = ["OF_IMAGES", "EngineChoice", "EngineName", "argument_faults"]

EngineName = Literal["transformers", "vllm"]

_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
_READING = ("max_length", "add_bos_token", "prefix_token_id")  # lm-eval's own, on reading prompts
OF_IMAGES = (
    *("image_string", "interleave", "convert_img_format", "image_max_side"),
    *("min_pixels", "max_pixels"),
)
"""What lm-eval is told of images in prompts: where they stand, and how large they are."""
# Of vLLM's arguments, those that say how much runs at once, not what is computed.
_OF_ROOM = frozenset(
    ("gpu_memory_utilization", "kv_cache_memory_bytes", "swap_space", "disable_log_stats")
)


class EngineChoice(BaseModel):
    """An engine by name; the other keys are its arguments.

    Attributes:
        name: ``transformers``, or ``vllm`` on GPUs.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: EngineName = "transformers"

    @field_validator("name", mode="before")
    @classmethod
    def _known_by_others(cls, name: object) -> object:
        """Say why an engine that people look for is not here."""
        if name == "sglang":
            raise ValueError(
                "expected transformers or vllm, got sglang: its engine computes in processes of "
                "its own, to which no merge was ever sent; export a trial and score the folder "
                "with lm_eval --model sglang"
            )
        return name

    @property
    def arguments(self) -> dict[str, Any]:
        """What the engine is told beside what evomerge says."""
        return dict(self.model_extra or {})

    @property
    def reading(self) -> dict[str, Any]:
        """What lm-eval is told of prompts: how long they may be, what they begin with, images."""
        known = (*_READING, *OF_IMAGES)
        return {key: self.arguments[key] for key in known if key in self.arguments}

    @property
    def attention(self) -> str | None:
        """How transformers computes attention; ``None``: as it sees fit."""
        return self.arguments.get("attn_implementation")

    @property
    def quantize(self) -> str | None:
        """What linear layers are quantized to before anything is scored; ``None``: they are not."""
        return self.arguments.get("quantize")

    @property
    def memory_share(self) -> float | None:
        """Which part of a device vLLM may take, if that is said."""
        return self.arguments.get("gpu_memory_utilization")

    @property
    def counted(self) -> EngineChoice:
        """The choice without arguments that cannot change what a candidate answers."""
        kept = {key: value for key, value in self.arguments.items() if key not in _OF_ROOM}
        return EngineChoice(name=self.name, **kept)

    @model_serializer(mode="wrap")
    def _shortest(self, handler: SerializerFunctionWrapHandler) -> object:
        """Write an engine without arguments as its name, as studies have always kept it."""
        return {**handler(self), "name": self.name} if self.arguments else self.name


def argument_faults(
    choice: EngineChoice, known: Callable[[], Collection[str]] | None = None
) -> Iterator[Fault]:
    """What is wrong with the arguments of an engine, by the keys of the choice.

    Args:
        choice: What is asked for.
        known: Names the arguments of vLLM, where it is installed.
    """
    own, given = _OWN[choice.name], choice.arguments
    yield from (Fault((key,), _set_by(own[key])) for key in given if key in own)
    others = {key: value for key, value in given.items() if key not in own}
    if choice.name == "transformers":
        yield from _transformers_faults(others)
    elif others:
        yield from _share_faults(others)
        yield from () if known is None else _unknown(others, sorted({*known()} - {*own}))


_OWN: Mapping[EngineName, Mapping[str, str]] = {
    "transformers": {
        **dict.fromkeys(("pretrained", "model", "revision", "subfolder"), "models"),
        **dict.fromkeys(("peft", "delta"), "models.experts"),
        **dict.fromkeys(("dtype", "torch_dtype", "mixed_precision_dtype"), "models.dtype"),
        "tokenizer": "models.tokenizer",
        **dict.fromkeys(("batch_size", "max_batch_size"), "evaluators"),
        **dict.fromkeys(("device", "device_map", "parallelize", "tp_plan"), "execution"),
    },
    "vllm": {
        **dict.fromkeys(("model", "revision", "load_format", "weights"), "models"),
        **dict.fromkeys(("dtype", "hf_overrides"), "models.dtype"),
        **dict.fromkeys(("tokenizer", "tokenizer_revision", "skip_tokenizer_init"), "models"),
        "seed": "seed",
        **dict.fromkeys(("quantize", "quantization"), "engine.quantize, for transformers only"),
    },
}


def _set_by(key: str) -> str:
    return f"expected no such argument: evomerge sets it itself, by the key {key}"


def _transformers_faults(given: Mapping[str, object]) -> Iterator[Fault]:
    yield from _unknown(given, ("attn_implementation", "quantize", *_READING, *OF_IMAGES))
    for key, value in given.items():
        wanted, fits = _VALUES.get(key, ("", lambda _: True))
        if not fits(value):
            yield Fault((key,), f"expected {wanted}, got {brief(value)}")


def _share_faults(given: Mapping[str, object]) -> Iterator[Fault]:
    share = given.get("gpu_memory_utilization", 0.5)
    if not (_is_number(share) and 0 < share < 1):  # type: ignore[operator]
        text = f"expected a share between 0 and 1 of a GPU's memory, got {brief(share)}"
        hint = "models and live model have the rest"
        yield Fault(("gpu_memory_utilization",), text, hint)


def _unknown(given: Collection[str], known: Collection[str]) -> Iterator[Fault]:
    for key in given:
        if key not in known:
            text = f"expected an argument that the engine takes, got {key!r}"
            if len(known) < 20:
                text = f"expected one of {', '.join(known)}, got {key!r}"
            yield Fault((key,), f"{text}{did_you_mean(key, known)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_VALUES: Mapping[str, tuple[str, Callable[[object], bool]]] = {
    "attn_implementation": (f"one of {', '.join(_ATTENTION)}", _ATTENTION.__contains__),
    "max_length": ("a whole number of tokens above 1", lambda value: _is_count(value, 2)),
    **dict.fromkeys(
        ("add_bos_token", "interleave", "convert_img_format"),
        ("true or false", lambda value: isinstance(value, bool)),
    ),
    **dict.fromkeys(
        ("image_max_side", "min_pixels", "max_pixels"),
        ("a whole number of pixels above 0", lambda value: _is_count(value, 1)),
    ),
    "image_string": ("a text", lambda value: isinstance(value, str) and bool(value)),
    "prefix_token_id": ("the number of a token", lambda value: _is_count(value, 0)),
}
