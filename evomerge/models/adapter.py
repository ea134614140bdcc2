"""LoRA adapters (PEFT folders) as experts: base tensor plus scale · B A, computed in row blocks."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from evomerge.errors import CheckpointError, brief
from evomerge.models.architecture import Architecture
from evomerge.models.checkpoint import (
    Checkpoint,
    StoredTensor,
    is_one_tensor,
    open_safetensors,
    stored_dtype,
)
from evomerge.models.files import file_in, read_json
from evomerge.models.loading import same_tensors
from evomerge.models.tiles import row_blocks

__all__ = ["Adapter"]

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(embedding_)?(?P<side>[AB])(\.default)?(\.weight)?")
# What PEFT puts into the names of tensors that an adapter holds whole.
_WRAPPERS = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.)")
_PREFIX = "base_model.model."
# Options that change the formula, all off by default.
_OTHER_FORMULAS = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_dora",
    "use_qalora",
)
_LARGEST_ALPHA = 1e30  # beyond, float32 overflows
# Initialisations that change the base, too; such an adapter means nothing on the original base.
_OTHER_BASES = ("corda", "loftq", "lora_ga", "olora", "pissa")


@dataclass(frozen=True)
class _LowRank:
    """Names of the two factors in the file, and how their product is used."""

    a: str
    b: str
    scale: float
    transposed: bool  # the tensor has (in, out) rather than (out, in)


class Adapter:
    """An expert that is a model plus a LoRA adapter.

    Tensors the adapter leaves alone are those of the model, mapped. Others are computed as
    W + scale · B A in float64, rounded to float32 once, so that every machine gets the same bytes.
    Embedding and head of a tied model are two tensors here, as they are for the adapter in training
    (PEFT's ``merge_and_unload`` writes the factors of either into both).

    Args:
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        on: The model it was trained on.

    Raises:
        CheckpointError: The adapter is no plain LoRA, or does not fit the model.

    Source:
        Hu et al. 2021, "LoRA", arXiv:2106.09685, eq. 3; scale α/r, or α/√r if ``use_rslora``:
        Kalajdzievski 2023, arXiv:2312.03732.
    """

    computation = ""

    def __init__(self, folder: Path, on: Checkpoint) -> None:
        self.layout = on
        self._file = file_in(folder, "adapter_model.safetensors")
        self.files = (*on.files, file_in(folder, "adapter_config.json"), self._file)
        self._config = read_json(self.files[-2])
        _check_supported(self._config, folder)
        _check_format(self._file)
        self._handle = open_safetensors(self._file)
        whole: dict[str, str] = {}  # name in the adapter's file by the name that PEFT changes
        factors: dict[str, dict[str, str]] = {}  # the same for A and B
        for key in sorted(self._handle.keys()):
            if match := _FACTOR.fullmatch(key):
                name = f"{match['module'].removeprefix(_PREFIX)}.weight"
                factors.setdefault(name, {})[match["side"]] = key
            else:
                whole[_WRAPPERS.sub("", key.removeprefix(_PREFIX))] = key
        elsewhere = [name for name in sorted({*whole, *factors}) if name not in on]
        self._spelt = same_tensors(on, elsewhere) if elsewhere else {}
        own = {self._whole_name(name, key): key for name, key in whole.items()}
        self._whole = self._beneath_twins(own) | own
        self._low_rank = dict(self._matched(name, found) for name, found in factors.items())

    def tensor(self, name: str) -> torch.Tensor:
        """See ``TensorSource``."""
        found = self._low_rank.get(name)
        original, *factors = (part.tensor for part in self.parts(name))
        if found is None:
            return original
        a, b = (factor.double() for factor in factors)
        left, right = (a.T, b.T) if found.transposed else (b, a)
        out = torch.empty(original.shape, dtype=torch.float32)
        for rows in row_blocks(out.shape):
            out[rows] = original[rows].double() + found.scale * (left[rows] @ right)
        return out

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``."""
        whole, found = self._whole.get(name), self._low_rank.get(name)
        original = self.layout.parts(name) if whole is None else (self._part(whole),)
        return original if found is None else (*original, self._part(found.a), self._part(found.b))

    @property
    def whole(self) -> Collection[str]:
        """Tensors of the model that the adapter holds whole."""
        return self._whole.keys()

    @property
    def low_rank(self) -> Collection[str]:
        """Tensors of the model that it changes by two factors."""
        return self._low_rank.keys()

    def factors(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return A (rank, in) and B (out, rank) in float64, whose product is added to a tensor.

        Raises:
            CheckpointError: The tensor is stored as (in, out).
        """
        found = self._low_rank[name]
        if found.transposed:
            raise CheckpointError(f"expected {name} as (out, in), got a tensor the other way round")
        a, b = (self._handle.get_tensor(key).double() for key in (found.a, found.b))
        return a, found.scale * b

    def module(self, name: str) -> str:
        """Name the module of a tensor as PEFT does in the adapter's file."""
        match = _FACTOR.fullmatch(self._low_rank[name].a)
        assert match is not None, "how the factors were found"
        return match["module"]

    def _part(self, key: str) -> StoredTensor:
        dtype = stored_dtype(self._handle, key, self._file)
        return StoredTensor(key, self._file, dtype, partial(self._handle.get_tensor, key))

    def _shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._handle.get_slice(key).get_shape())

    def _whole_name(self, changed: str, key: str) -> str:
        """Find the tensor that one of the adapter replaces: modules_to_save, biases, embeddings."""
        name = self._in_layout(changed, key)
        shape, wanted = self._shape(key), self.layout.shape(name)
        if shape != wanted:
            raise self._misfit(key, f"its shape is {shape}, that of the model's tensor {wanted}")
        return name

    def _beneath_twins(self, whole: Mapping[str, str]) -> dict[str, str]:
        """Find what is loaded beneath factors of head or embedding, and so into the other, too.

        PEFT's copies of modules are apart from the model's; the tensor that factors are added to
        is the model's own, which a tied model has once.
        """
        beneath = {name for name, key in whole.items() if ".base_layer." in key}
        if not beneath:
            return {}
        on, given = self.layout, {own: name for name, own in self.layout.own_names.items()}
        tied = Architecture(on.config, given).tied.items()
        pairs = [(given[one], given[two]) for one, two in tied]
        return {
            two: whole[one]
            for pair in pairs
            for one, two in (pair, pair[::-1])
            if one in beneath and is_one_tensor(on, one, two)
        }

    def _in_layout(self, changed: str, key: str) -> str:
        """Find a tensor of the model, whose files may spell it in another way than PEFT."""
        name = self._spelt.get(changed, changed)
        if name not in self.layout:
            raise self._misfit(key, f"the model has no tensor {name}")
        return name

    def _matched(self, changed: str, found: Mapping[str, str]) -> tuple[str, _LowRank]:
        """Find the tensor that a pair of factors changes, and check that it does."""
        key = next(iter(found.values()))
        if found.keys() != {"A", "B"}:
            raise self._misfit(key, "its other factor is missing")
        name, module = self._in_layout(changed, key), changed.removesuffix(".weight")
        a, b = self._shape(found["A"]), self._shape(found["B"])
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not a[0]:
            raise self._misfit(key, f"factors of shapes {a} and {b} have no common rank")
        straight, turned = (b[0], a[1]), (a[1], b[0])
        shape = self.layout.shape(name)
        may_turn = self._config.get("fan_in_fan_out") or ".lora_embedding_" in key
        if shape not in ({straight, turned} if may_turn else {straight}):
            raise self._misfit(key, f"its product has shape {straight}, {name} has {shape}")
        # A square tensor does not show its orientation; other shapes overrule the option, which
        # holds for Conv1D modules only.
        transposed = bool(may_turn) and shape == turned
        return name, _LowRank(found["A"], found["B"], self._scale(module, rank=a[0]), transposed)

    def _scale(self, module: str, rank: int) -> float:
        alpha = self._config.get("lora_alpha", rank)
        for pattern, value in (self._config.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", module):
                alpha = value
                break
        return float(alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank))

    def _misfit(self, key: str, reason: str) -> CheckpointError:
        trained_on = self._config.get("base_model_name_or_path")
        hint = f" (says {trained_on!r})" if trained_on else ""
        return CheckpointError(
            f"expected an adapter that fits {self.layout.folder}, got {key} in {self._file}: "
            f"{reason}; give the model that the adapter was trained on{hint} as 'on'"
        )


def _check_format(file: Path) -> None:
    pickled = file.with_suffix(".bin")
    if pickled.is_file() and not file.is_file():
        raise CheckpointError(
            f"expected {file.name} in {file.parent}, found {pickled.name}, a pickle, which can run "
            "code when it is opened; if you trust it, convert it: "
            f'safetensors.torch.save_file(torch.load("{pickled.name}"), "{file.name}")'
        )


def _check_supported(config: Mapping[str, Any], folder: Path) -> None:
    found = [option for option in _OTHER_FORMULAS if config.get(option)]
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_OTHER_BASES):
        found.append(f"init_lora_weights {start}")
    if config.get("peft_type", "LORA") != "LORA":
        found.append(f"peft_type {config['peft_type']}")
    _check_scales(config, folder)
    if found:
        raise CheckpointError(
            f"expected a plain LoRA adapter in {folder}, got one with {', '.join(found)}; merge it "
            "into its model with PEFT's merge_and_unload and give that folder as the expert"
        )


def _check_scales(config: Mapping[str, Any], folder: Path) -> None:
    """Refuse what is no number, or no pattern, where a scale comes from."""
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, Mapping) or not all(map(_is_pattern, patterns)):
        raise _wrong_scale("numbers by pattern as alpha_pattern", folder, patterns)
    named = {f"alpha_pattern of {pattern}": value for pattern, value in patterns.items()}
    for name, value in {"lora_alpha": config.get("lora_alpha", 1), **named}.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) < _LARGEST_ALPHA:
            raise _wrong_scale(f"a number as {name}", folder, value)


def _wrong_scale(expected: str, folder: Path, got: object) -> CheckpointError:
    return CheckpointError(
        f"expected {expected} in the adapter_config.json in {folder}, got {brief(got)}"
    )


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError):
        return False
    return True
