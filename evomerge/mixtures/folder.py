"""A mixture as a checkpoint on disk, tensor by tensor, that stock transformers loads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evomerge.merging.folder import SHARD_BYTES
from evomerge.merging.output import WRITTEN, ModelFolder, claim_folder, write_model
from evomerge.mixtures.file import MixtureFile, dump_mixture
from evomerge.mixtures.kinds import mixture_config
from evomerge.mixtures.routers import alike_layers, router_rows
from evomerge.mixtures.sources import MixtureSources
from evomerge.seeds import seed_for

__all__ = ["WrittenMixture", "write_mixture"]


@dataclass(frozen=True)
class WrittenMixture:
    """What there is to say of a mixture on disk.

    Attributes:
        name: Of its architecture.
        n_parameters: Of all experts.
        n_active: That a token meets.
        alike: Layers whose routers tell the experts hardly apart.
    """

    name: str
    n_parameters: int
    n_active: int
    alike: tuple[int, ...]


def write_mixture(
    file: MixtureFile,
    out: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenMixture:
    """Write a mixture of experts as an ordinary Hugging Face folder.

    With experts that all equal the base it answers as the base does. Memory: one tensor at once,
    and the base while it reads prompts. What was interrupted continues after its last complete
    shard.

    Args:
        file: What to write.
        out: Folder; created if needed. An earlier merge in it is replaced.
        shard_bytes: Largest size of one safetensors file.
        progress: Called with (tensors done, tensors in all).

    Raises:
        ConfigError: No architecture of mixtures is made of such models.
        NonFiniteError: A model, or what is made of it, holds NaN or infinity.
        CheckpointError: A model is missing or does not fit, or the folder cannot be written.
    """
    sources = MixtureSources(file)
    models = [sources.base, *sources.experts]
    files = dict.fromkeys(path for model in models for path in model.files)
    claim_folder(out, file.digest, files, shard_bytes)
    rows = router_rows(sources)
    model = ModelFolder(
        sources.forms,
        _Tensors(sources, rows).tensor,
        sources.base.folder,
        _config(sources),
        dump_mixture(file, f"{WRITTEN}\nevomerge moe THIS --out DIR", beside=out),
        "choose dtype bfloat16 or float32, or smaller scales",
    )
    write_model(out, model, shard_bytes, progress)
    return WrittenMixture(sources.kind.name, *sources.n_parameters, tuple(alike_layers(rows)))


def _config(sources: MixtureSources) -> dict[str, Any]:
    own = mixture_config(sources.kind, sources.file, sources.base.config, has_bias=sources.has_bias)
    dtype = str(sources.dtype).removeprefix("torch.")
    return own | {"dtype": dtype, "tie_word_embeddings": sources.is_tied}


@dataclass(frozen=True, eq=False)
class _Tensors:
    """Hands out the tensors of a mixture.

    Attributes:
        sources: Its models.
        rows: Of its routers (``router_rows``).
    """

    sources: MixtureSources
    rows: torch.Tensor

    def tensor(self, name: str) -> torch.Tensor:
        part = self.sources.parts.get(name)
        found = self._router(name) if part is None else self._lent(name)
        return found.to(self.sources.dtype)

    def _router(self, name: str) -> torch.Tensor:
        n, kind = len(self.sources.file.experts), self.sources.kind
        layer = next(i for i in range(self.sources.n_layers) if f".layers.{i}." in name)
        own = self.rows[layer]
        return own[:n] if name == kind.router(layer) else own[n:]

    def _lent(self, name: str) -> torch.Tensor:
        part = self.sources.parts[name]
        if part.expert is None:
            return self.sources.base.tensor(part.name)
        expert = self.sources.file.everyone[part.expert]
        found = self.sources.experts[part.expert].tensor(part.name)
        if expert.noise_scale:
            seed = seed_for(self.sources.file.seed, "noise", name)
            noise = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed))
            found = found.float() + expert.noise_scale * noise
        if part.is_output and expert.residual_scale is not None:
            found = found.float() * expert.residual_scale
        return found
