"""What can be wrong with a path spec, found before any model is loaded."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.errors import Fault
from evomerge.recipe.path import LARGEST_SCALE
from evomerge.space.dataflow.genes import PathGenes, initial_path
from evomerge.space.dataflow.slots import Slots, sources_of
from evomerge.space.dataflow.spec import PathSpec, Run, ScaleSpec

__all__ = ["path_faults"]


def path_faults(
    spec: PathSpec, *, known: tuple[str, ...], default: tuple[str, ...], n_layers: int
) -> list[Fault]:
    """List every fault of a path; empty if all is well.

    Args:
        spec: The path.
        known: Every source there is.
        default: Sources if the spec names none.
        n_layers: Layers of the models; 0 if they could not be opened.
    """
    sources = spec.named_sources(default)
    faults = [*_name_faults("sources", sources, known)]
    faults += _name_faults("owner", spec.owner, known)
    if isinstance(spec.encoding, Slots) and spec.encoding.choices:
        faults += _choice_faults(spec.encoding, sources)
    least = spec.least_limit(default)
    if spec.max_hops is not None and spec.max_hops < least:
        text = (
            f"expected at least {least} (the first and the last layer, and the most between them "
            f"that belong together), got {spec.max_hops}"
        )
        faults.append(Fault(("max_hops",), text))
    if spec.scale is not None:
        faults += _scale_faults(spec.scale)
    if not faults and spec.initial:
        faults += _run_faults(spec.initial, known)
    if not faults and spec.initial and n_layers:
        faults += _initial_faults(spec, default, n_layers)
    return faults


def _name_faults(key: str, names: tuple[str, ...], known: tuple[str, ...]) -> Iterator[Fault]:
    for name in dict.fromkeys(names):
        if name not in known:
            yield Fault((key,), f"expected names out of {', '.join(known)}, got {name!r}")
        if names.count(name) > 1:
            yield Fault((key,), f"expected each name once, got {name!r} {names.count(name)} times")


def _choice_faults(options: Slots, sources: tuple[str, ...]) -> Iterator[Fault]:
    path = ("encoding", "choices")
    choices = options.all_choices(sources)
    meanings = [sources_of(choice) for choice in choices]
    for choice, visited in zip(choices, meanings, strict=True):
        if strange := [name for name in visited if name not in sources]:
            text = (
                f"expected 'skip' or names joined by '>' out of {', '.join(sources)}, got "
                f"{strange[0]!r} in {choice!r}"
            )
            yield Fault(path, text)
        if meanings.count(visited) > 1:
            yield Fault(path, f"expected each choice once, got {choice!r} more often")


def _scale_faults(scale: ScaleSpec) -> Iterator[Fault]:
    low, high = scale.range
    if not 0 < low <= 1 <= high or low == high:
        text = (
            "expected [low, high] with 0 < low <= 1 <= high, as 1 leaves a layer as it is, got "
            f"[{low:g}, {high:g}]"
        )
        yield Fault(("scale", "range"), text, "'scale: null' has no scales")
    if not 1 < scale.limit <= LARGEST_SCALE:
        text = f"expected more than 1, at most {LARGEST_SCALE:g}, got {scale.limit:g}"
        yield Fault(("scale", "limit"), text)


def _run_faults(runs: tuple[Run, ...], known: tuple[str, ...]) -> Iterator[Fault]:
    for i, run in enumerate(runs):
        start, stop = run.layers
        if not 0 <= start < stop <= 1:
            text = (
                "expected two shares of the depth, 0 <= first < last <= 1, got "
                f"[{start:g}, {stop:g}]"
            )
            yield Fault(("initial", i, "layers"), text)
        if run.source is not None:
            yield from (f.under("initial", i) for f in _name_faults("source", (run.source,), known))


def _initial_faults(spec: PathSpec, default: tuple[str, ...], n_layers: int) -> Iterator[Fault]:
    owner = spec.owners(default)[0]
    path = initial_path(spec.initial, owner, n_layers)
    ends = [(path[i].source, path[i].layer) for i in (0, -1)] if path else []
    if ends != [(owner, 0), (owner, n_layers - 1)]:
        text = f"expected runs from the first to the last layer of the owner {owner!r}"
        yield Fault(("initial",), text)
    elif PathGenes(spec, default, n_layers).values(owner, path) is None:
        text = (
            f"expected a path that the encoding {spec.encoding.name!r} and max_hops allow, got one "
            f"of {len(path)} layers that they do not"
        )
        yield Fault(("initial",), text)
