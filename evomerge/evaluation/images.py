"""Images in prompts: which tasks have them, what stands in their way, what their pixels are.

Pillow need not be installed: without it no value is an image.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import xxhash

from evomerge.errors import EvaluationError
from evomerge.evaluation.harness import GENERATION, Instance, Task

__all__ = [
    "PLACEHOLDER",
    "ImageCount",
    "has_images",
    "image_barriers",
    "image_bytes",
    "images_of",
    "require_images",
    "with_pixels",
]

PLACEHOLDER = "<image>"  # what lm-eval's prompts have where an image belongs
_LM_EVAL = "lm-eval's hf-multimodal"
_ELSEWHERE = "export a trial, and score its folder with"


@dataclass(frozen=True)
class ImageCount:
    """Images in prompts.

    Attributes:
        tasks: Whose prompts they are in.
        n: How many there are.
        n_bytes: Of all of them, decoded.
    """

    tasks: tuple[str, ...]
    n: int
    n_bytes: int


def has_images(task: Task) -> bool:
    """Tell whether the prompts of a task have more than text in them."""
    return bool(getattr(task, "MULTIMODAL", False))


def image_barriers(task: Task) -> Iterator[str]:
    """Say why a task with images, or sound, cannot be scored by any model, in one line each."""
    if not has_images(task):
        return
    if getattr(task.config, "doc_to_audio", None):
        yield f"needs sound, which no model gets here; {_ELSEWHERE} lm_eval"
    elif task.OUTPUT_TYPE != GENERATION:
        yield (
            f"scores given texts after images (output_type: {task.OUTPUT_TYPE}), which "
            f"{_LM_EVAL} does not; let the answer be written (output_type: {GENERATION})"
        )
    elif find_spec("PIL") is None:
        yield "needs Pillow, which is not installed; pip install 'evomerge[images]'"
    elif names := [one for one in _columns(task) if one not in task.features]:
        yield (
            f"takes images from {names[0]!r} (doc_to_image), expected a column of its data: "
            f"{', '.join(task.features)}"
        )


def _columns(task: Task) -> list[str]:
    """List the columns that images are taken from; functions and templates name none."""
    given = task.config.doc_to_image
    names = given if isinstance(given, list) else [given]
    return [one for one in names if isinstance(one, str) and one.isidentifier()]


def images_of(request: Instance) -> tuple[Any, ...]:
    """Give the images of a request, in the order of their places in the prompt."""
    more = request.args[2] if len(request.args) > 2 else {}
    found = more.get("visual")
    return tuple(found) if isinstance(found, list) else ()


def require_images(request: Instance, n_places: int) -> None:
    """Refuse a prompt that has not a place for each of its images.

    Args:
        request: Of a task with images.
        n_places: How many places for images its prompt has.

    Raises:
        EvaluationError: What came is no list of images, or there are more or fewer.
    """
    found = request.args[2].get("visual")
    if not found or not isinstance(found, list) or not all(map(_is_image, found)):
        got = type(found).__name__
        if found and isinstance(found, list):
            got = f"a list with {next(type(one).__name__ for one in found if not _is_image(one))}"
        raise EvaluationError(
            f"expected a list of images from doc_to_image, got {got}; name features with images "
            "in a list (doc_to_image: [image])"
        )
    if len(found) != n_places:
        raise EvaluationError(
            f"expected a place ({PLACEHOLDER}) for each image in a prompt, got {n_places} for "
            f"{len(found)}; prompts have the images of their own item only, so examples "
            "(num_fewshot) cannot have any"
        )


def with_pixels(value: object) -> object:
    """Replace every image in plain data by a description of its pixels, for a digest."""
    if isinstance(value, Mapping):
        return {key: with_pixels(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [with_pixels(part) for part in value]
    return _pixels(value) if _is_image(value) else value


def image_bytes(images: Iterable[Any]) -> int:
    """Reckon the memory of images: a byte for each band of each pixel."""
    return sum(one.width * one.height * len(one.getbands()) for one in images)


def _pixels(image: Any) -> list[object]:
    palette = image.getpalette() if image.mode == "P" else None
    return ["image", image.mode, image.size, palette, xxhash.xxh3_128_hexdigest(image.tobytes())]


def _is_image(value: object) -> bool:
    return "PIL" in sys.modules and isinstance(value, _image_class())


@functools.cache
def _image_class() -> type:
    from PIL.Image import Image

    image: type = Image
    return image
