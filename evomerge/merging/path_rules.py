"""Which paths models can run: checked before a candidate or a checkpoint is made of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, cached_property

from evomerge.errors import Fault, RecipeError
from evomerge.merging.sources import Sources
from evomerge.models.branches import branches_of
from evomerge.models.depth import movement_fault, source_fault
from evomerge.recipe.path import BASE, MERGED, Hop

__all__ = ["PathRules"]


class PathRules:
    """What the models of a recipe allow; looked up once, so that checking a path is quick.

    Args:
        sources: The models.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._config = sources.anchor.config
        self._model_type = self._config.get("model_type")
        self._source_fault = cache(self._looked_up_source_fault)

    def check(self, path: Sequence[Hop]) -> None:
        """Refuse a path that these models cannot run, or no plain checkpoint can hold.

        Args:
            path: Of a valid recipe; an empty one is always fine.

        Raises:
            RecipeError: Listing every fault, one line each.
        """
        if path and (faults := list(self._faults(path))):
            raise RecipeError(*faults)

    def _faults(self, path: Sequence[Hop]) -> Iterator[Fault]:
        n_layers = self._sources.architecture.n_layers
        for t, hop in enumerate(path):
            if hop.layer >= n_layers:
                text = f"expected one of {n_layers} layers, got {hop.layer}"
                yield Fault(("path", t, "layer"), text)
        if self._movement_fault is not None:
            text = (
                f"expected layers that can be put at other positions, got those of a "
                f"{self._model_type} model: {self._movement_fault}"
            )
            yield Fault(("path",), text, "leave out the path")
            return
        reasons = map(self._source_fault, dict.fromkeys(hop.source for hop in path))
        yield from (Fault(("path",), reason) for reason in reasons if reason)
        if branches_of(self._model_type) is None and any(hop.scale != 1 for hop in path):
            text = (
                "expected no scales, got some for a model whose checkpoint cannot hold them: how "
                f"layers of type {self._model_type} write the residual stream is not known"
            )
            yield Fault(("path",), text, "set every scale to 1")

    @cached_property
    def _movement_fault(self) -> str | None:
        return movement_fault(self._config)

    def _looked_up_source_fault(self, source: str) -> str | None:
        if source in (BASE, MERGED):
            return None
        config = self._sources.experts[source].layout.config
        reason = source_fault(self._config, config)
        if reason is None:
            return None
        return (
            f"expected layers that run as they are within {self._sources.anchor.folder}, got "
            f"those of expert {source!r}, whose {reason}; use {MERGED!r} layers, or another expert"
        )
