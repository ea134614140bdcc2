"""Read-only access to a safetensors checkpoint, memory-mapped, in one file or many shards."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from evomerge.errors import CheckpointError
from evomerge.models.configs import read_config, without_keys
from evomerge.models.files import weight_files
from evomerge.models.tiles import row_blocks

if TYPE_CHECKING:
    from evomerge.models.expert import TensorSource

__all__ = [
    "DTYPES",
    "Checkpoint",
    "StoredTensor",
    "is_one_tensor",
    "model_dtype",
    "open_safetensors",
    "quantized_tensor",
    "stored_dtype",
]

DTYPES = {  # by their names in the files
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_FLOATING = {
    str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values() if dtype.is_floating_point
}
_QUANTIZED = re.compile(
    r"(.*[.:])?("
    r"qweight|qzeros|scales|g_idx"  # GPTQ, AWQ, AutoRound
    r"|SCB|weight_format"  # bitsandbytes, 8 bits
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\..+)"  # and 4
    r"|weight_(scales?|scale_inv|scale_2|packed|shape|zero_point|global_scale|g_idx)"  # fp8, …
    r"|W_q"  # HQQ
    r"|weight\._(data|scale|shift|zeropoint)"  # quanto
    r"|_weight_\w+|_data|_qdata"  # torchao
    r"|codebooks|centroids|dense_weights"  # AQLM, VPTQ, SpQR
    r"|\w+_proj_(blocks|scales)"  # MXFP4
    r")"
)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """One stored tensor that an expert's tensor is made of.

    Attributes:
        name: As in the file.
        file: Where it is.
        dtype: As in the file.
        read: Maps it into memory.
    """

    name: str
    file: Path
    dtype: torch.dtype
    read: Callable[[], torch.Tensor]

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor, backed by the file; never write into it."""
        return self.read()


class Checkpoint:
    """The tensors of one model folder, read lazily.

    Files stay memory-mapped: processes on one machine share a single copy through the page cache.

    Args:
        folder: Holds ``config.json`` and what ``weight_files`` finds.
        files: What stands for the safetensors files where they are not in the folder, by path.

    Attributes:
        folder: As given.
        config: As transformers reads it; without the quantization that the weights do not have.
        names: Of all tensors, sorted.

    Raises:
        CheckpointError: Files are missing, are not safetensors or lie elsewhere; or the model is
            quantized.
    """

    computation = ""

    def __init__(self, folder: Path, files: Mapping[Path, Any] | None = None) -> None:
        self.folder = folder
        config = read_config(folder)
        self._open_files = _opened(weight_files(folder, config)) if files is None else dict(files)
        self._file_of = _names_in(self._open_files)
        self._stored = {name: name for name in self._file_of}  # what a file calls it
        self._own: Mapping[str, str] = self._stored  # what its model calls it
        self._mapped: dict[str, torch.Tensor] = {}  # views of the files, which take no memory
        self.names = tuple(sorted(self._stored))
        self._refuse_quantized(config)
        self.config = without_keys(config, "quantization_config")

    def __contains__(self, name: object) -> bool:
        return name in self._stored

    def named(self, stored: Mapping[str, str], own: Mapping[str, str] | None = None) -> Checkpoint:
        """Give some of the tensors other names; two names may stand for one tensor.

        Args:
            stored: This checkpoint's name of each tensor, by the new name.
            own: By the new name, one that its model can load; absent: the new name itself.
        """
        other = copy(self)
        other._stored = {name: self._stored[its] for name, its in stored.items()}
        other._own = {name: name for name in stored} if own is None else own
        other.names = tuple(sorted(stored))
        return other

    @property
    def own_names(self) -> Mapping[str, str]:
        """By name, one that its own model can load; another one for a tower of a larger model."""
        return self._own

    def file_of(self, name: str) -> Path:
        """Tell which file holds a tensor."""
        return self._file_of[self._stored[name]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Read a tensor's shape without reading its values."""
        return tuple(self._slice(name).get_shape())

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Read every tensor's shape without reading values."""
        return {name: self.shape(name) for name in self.names}

    def dtype(self, name: str) -> torch.dtype:
        """Read a tensor's dtype without reading its values.

        Raises:
            CheckpointError: It is a dtype of quantized models.
        """
        return stored_dtype(self._handle(name), self._stored[name], self.file_of(name))

    def tensor(self, name: str) -> torch.Tensor:
        """Map one tensor into memory.

        Args:
            name: Tensor name.

        Returns:
            A CPU tensor backed by the file; never write into it.

        Raises:
            CheckpointError: The checkpoint has no such tensor.
        """
        handle, stored = self._handle(name), self._stored.get(name, name)
        if stored not in self._mapped:
            self._mapped[stored] = handle.get_tensor(stored)
        return self._mapped[stored]

    @property
    def layout(self) -> Checkpoint:
        """See ``TensorSource``."""
        return self

    @property
    def companions(self) -> Path:
        """Folder of its tokenizer, chat template and generation settings."""
        return self.folder

    @property
    def files(self) -> tuple[Path, ...]:
        """See ``TensorSource``."""
        return (self.folder / "config.json", *sorted(set(self._file_of.values())))

    def parts(self, name: str) -> tuple[StoredTensor, ...]:
        """See ``TensorSource``."""
        file, dtype = self.file_of(name), self.dtype(name)
        return (StoredTensor(self._stored[name], file, dtype, partial(self.tensor, name)),)

    def _slice(self, name: str) -> Any:
        return self._handle(name).get_slice(self._stored[name])

    def _handle(self, name: str) -> Any:
        try:
            return self._open_files[self.file_of(name)]
        except KeyError:
            raise CheckpointError(
                f"expected tensor {name!r} in {self.folder}, found none"
            ) from None

    def _refuse_quantized(self, config: Mapping[str, Any]) -> None:
        name = quantized_tensor(self.names, self.dtype)
        if name is not None:
            settings = config.get("quantization_config")
            method = settings.get("quant_method") if isinstance(settings, Mapping) else None
            raise CheckpointError(
                f"expected plain weights in {self.folder}, got {name} of a quantized model"
                f"{f' ({method})' if method else ''}; save it in bfloat16 first, or give the model "
                "that it was made of"
            )


def _opened(files: Mapping[Path, Collection[str]]) -> dict[Path, Any]:
    """Open files and make sure that the tensors which their index promises are in one of them."""
    handles = {path: open_safetensors(path) for path in files}
    found = {name for file in handles.values() for name in file.keys()}  # noqa: SIM118
    for path, promised in files.items():
        if missing := sorted(set(promised) - found):
            raise CheckpointError(
                f"expected {missing[0]} in {path}, as the index says, found no such tensor; fetch "
                "the model again"
            )
    return handles


def _names_in(files: Mapping[Path, Any]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path, file in files.items():
        for name in file.keys():  # noqa: SIM118
            if name in found:
                raise CheckpointError(
                    f"expected every tensor once, got {name} in {found[name]} and in {path}; save "
                    "the model again with save_pretrained"
                )
            found[name] = path
    return found


def open_safetensors(path: Path) -> Any:
    """Map a safetensors file into memory.

    Raises:
        CheckpointError: It is missing or broken.
    """
    if not path.is_file():
        raise CheckpointError(f"expected a safetensors file at {path}, found none; fetch it again")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as err:
        raise CheckpointError(
            f"{path} is not a readable safetensors file: {err}; fetch it again"
        ) from err


def stored_dtype(file: Any, name: str, path: Path) -> torch.dtype:
    """Read a tensor's dtype off an open file.

    Args:
        file: From ``open_safetensors``.
        name: Tensor name.
        path: Of the file; named in faults.

    Raises:
        CheckpointError: It is a dtype of quantized models.
    """
    found = file.get_slice(name).get_dtype()
    if found not in DTYPES:
        raise CheckpointError(
            f"expected tensors of dtype {', '.join(DTYPES)}, got {name} of {found} in {path}; save "
            "a quantized model in bfloat16 first"
        )
    return DTYPES[found]


def is_one_tensor(model: TensorSource, name: str, other: str) -> bool:
    """Tell whether two tensors of a model are the same, stored once or twice."""
    stored = [[(part.file, part.name) for part in model.parts(n)] for n in (name, other)]
    if stored[0] == stored[1]:
        return True
    try:
        one, two = model.tensor(name), model.tensor(other)
    except CheckpointError:  # only looked at: what the config says must do
        return True
    return all(bool((one[rows] == two[rows]).all()) for rows in row_blocks(one.shape))


def model_dtype(checkpoint: Checkpoint, names: Iterable[str]) -> torch.dtype:
    """Tell in which dtype a model is meant to be loaded.

    Args:
        checkpoint: Its files.
        names: Tensors that count, all floating, at least one.

    Returns:
        The dtype that the config names, for the language model if not for all; if it names none,
        the one that most elements are stored in.
    """
    named = [_named(part) for part in (checkpoint.config, checkpoint.config.get("text_config"))]
    elements: Counter[torch.dtype] = Counter()
    if not any(named):
        for name in names:
            elements[checkpoint.dtype(name)] += math.prod(checkpoint.shape(name))
    return next(filter(None, named), None) or elements.most_common(1)[0][0]


def _named(config: Any) -> torch.dtype | None:
    if not isinstance(config, Mapping):
        return None
    found = config.get("dtype") or config.get("torch_dtype")
    return _FLOATING.get(str(found).removeprefix("torch."))


def quantized_tensor(names: Iterable[str], dtype_of: Callable[[str], torch.dtype]) -> str | None:
    """Find a tensor that only a quantized checkpoint has.

    Args:
        names: Tensor names.
        dtype_of: Tells the stored dtype of one that is called a weight.

    Returns:
        The first such name: by GPTQ, AWQ, bitsandbytes, fp8 and compressed-tensors, HQQ, quanto,
        torchao, AQLM, MXFP4, or a weight in whole numbers.
    """
    for name in names:
        is_weight = name.endswith(".weight")
        if _QUANTIZED.fullmatch(name) or (is_weight and not dtype_of(name).is_floating_point):
            return name
    return None
