"""Models that read more than text: a language tower, a vision tower, a projector between them.

A family is added by one row below, and tested by its tiny model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import ConfigDict

from evomerge.errors import Fault, did_you_mean

__all__ = ["OTHER_PARTS", "OtherPart", "PartsChoice", "PartsLayout", "parts_families", "parts_of"]

OtherPart = Literal["vision", "projector"]
"""What a model of vision and language has beside its language tower."""
OTHER_PARTS: tuple[OtherPart, ...] = get_args(OtherPart)


@dataclass(frozen=True)
class PartsLayout:
    """Where the parts of one family's models are, by module of the live model.

    Attributes:
        vision: What reads images. What no other part holds is the language tower.
        projector: What makes tokens of them; may lie inside of ``vision``.
        language: Stands for the decoder of a model of text alone.
    """

    vision: tuple[str, ...]
    projector: tuple[str, ...]
    language: str = "language_model"

    def other_part(self, live: str) -> OtherPart | None:
        """Tell which part a tensor is of; ``None``: the language tower.

        Args:
            live: Its name in the live model.
        """
        for part, modules in (("projector", self.projector), ("vision", self.vision)):
            if any(f"{live}.".startswith(f"model.{module}.") for module in modules):
                return "projector" if part == "projector" else "vision"
        return None

    def in_tower(self, live: str) -> str:
        """Name a tensor of a model of text alone as the language tower has it.

        Args:
            live: Its name in the live model of text, or two of them as ``live_names`` gives them
                for a tensor that is fused with others: the second without its first component.
        """
        if not live.startswith("model."):  # the head, which is outside of both
            return live
        own = live.removeprefix("model.").replace(" ", f" {self.language}.")
        return f"model.{self.language}.{own}"


_PLAIN = PartsLayout(("vision_tower",), ("multi_modal_projector",))
_TILED = PartsLayout(("vision_tower",), ("multi_modal_projector", "image_newline"))
_QWEN = PartsLayout(("visual",), ("visual.merger", "visual.deepstack_merger_list"))
_IDEFICS = PartsLayout(("vision_model",), ("connector",), "text_model")

_LAYOUTS: Mapping[str, PartsLayout] = {
    "cohere2_vision": _PLAIN,
    "gemma3": _PLAIN,
    "glm4v": _QWEN,
    "idefics2": _IDEFICS,
    "idefics3": _IDEFICS,
    "internvl": _PLAIN,
    "lfm2_vl": _PLAIN,
    "llava": _PLAIN,
    "llava_next": _TILED,
    "llava_onevision": _TILED,
    "mistral3": _PLAIN,
    "paligemma": _PLAIN,
    "qwen2_5_vl": _QWEN,
    "qwen2_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "smolvlm": _IDEFICS,
    "video_llama_3": PartsLayout(("vision_model",), ("projector",)),
    "vipllava": _PLAIN,
}


def parts_families() -> tuple[str, ...]:
    """List the model types whose parts are known."""
    return tuple(_LAYOUTS)


def parts_of(config: Mapping[str, Any]) -> PartsLayout | None:
    """Look up the parts of a model.

    Args:
        config: A checkpoint's ``config.json``.

    Returns:
        ``None`` for models of text alone, and for families that nobody has looked at.
    """
    return _LAYOUTS.get(str(config.get("model_type")))


@dataclass(frozen=True)
class PartsChoice:
    """Which model the parts of a merge beside its language tower are taken from.

    Attributes:
        vision: ``base`` or an expert's name; absent: merged where every model has a vision tower,
            else the base's.
        projector: Likewise.
    """

    vision: str | None = None
    projector: str | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    def donor(self, part: OtherPart) -> str | None:
        """Name the model that lends a part; ``None``: none was chosen."""
        return self.vision if part == "vision" else self.projector

    def faults(self, models: tuple[str, ...]) -> Iterator[Fault]:
        """List names that no model has.

        Args:
            models: ``base``, if there is one, and the experts' names.
        """
        for part, name in self.as_data().items():
            if name not in models:
                hint = did_you_mean(name, models)
                yield Fault((part,), f"expected one of {', '.join(models)}, got {name!r}{hint}")

    def as_data(self) -> dict[str, str]:
        """Return plain data, leaving out what is as by default."""
        chosen = {part: self.donor(part) for part in OTHER_PARTS}
        return {part: name for part, name in chosen.items() if name is not None}
