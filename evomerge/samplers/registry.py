"""From a sampler's name in YAML to a sampler."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from optuna.samplers import BaseSampler

from evomerge.errors import ConfigError, Fault, near_name
from evomerge.samplers.auto import choose
from evomerge.samplers.kinds import Options, SamplerKind, SearchProblem

__all__ = ["build_sampler", "resolve_sampler", "sampler_names"]

_GROUP = "evomerge.samplers"
_BUILT_IN = {
    "random": "evomerge.samplers.in_optuna:RANDOM",
    "tpe": "evomerge.samplers.in_optuna:TPE",
    "gp": "evomerge.samplers.in_optuna:GP",
    "nsga2": "evomerge.samplers.in_optuna:NSGA2",
    "nsga3": "evomerge.samplers.in_optuna:NSGA3",
    "pycma": "evomerge.samplers.pycma:PYCMA",
    "catcma": "evomerge.samplers.catcma:CATCMA",
    "comocma": "evomerge.samplers.catcma:COMOCMA",
    "map": "evomerge.samplers.amortised:MAP",
    "m2n2": "evomerge.samplers.niches:M2N2",
    "slopes": "evomerge.samplers.slopes:SLOPES",
    "greedy_soup": "evomerge.samplers.greedy_soup:GREEDY_SOUP",
}
_REMOVED = {"qmc": "random"}  # and what to take instead
_AUTO = "chooses among the others by genes, objectives and budget"


def sampler_names() -> dict[str, str]:
    """List the samplers: name to one line on when to use it; ``auto`` first."""
    return {"auto": _AUTO, **{name: _load(name).when for name in _names()}}


def build_sampler(name: str, options: Options, problem: SearchProblem) -> BaseSampler:
    """Build a sampler.

    Args:
        name: One of ``sampler_names``.
        options: The sampler's own options, as in YAML; ``auto`` has none.
        problem: What it is built for.

    Raises:
        ConfigError: No such sampler, or one line per wrong option.
        SpaceError: The sampler cannot search the space.
    """
    name, options = resolve_sampler(name, options, problem)
    return _load(name).build(options, problem)


def resolve_sampler(name: str, options: Options, problem: SearchProblem) -> tuple[str, Options]:
    """Settle what follows the budget, to be kept with the study, so that it may grow later.

    Args:
        name: One of ``sampler_names``.
        options: The sampler's own options.
        problem: As the study is created.

    Returns:
        The sampler that runs (never ``auto``) and its options.

    Raises:
        ConfigError: No such sampler, or one line per wrong option.
    """
    if name == "auto":
        if options:
            faults = (Fault((name,), "auto has no options", "leave it out") for name in options)
            raise ConfigError(*faults)
        name = choose(problem).name
    return name, _load(name).resolve(options, problem)


def _names() -> list[str]:
    plugins = {entry.name for entry in entry_points(group=_GROUP)}
    return [*_BUILT_IN, *sorted(plugins - _BUILT_IN.keys())]


def _load(name: str) -> SamplerKind:
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name].split(":")
        kind = getattr(import_module(module), attribute)
    else:
        found = list(entry_points(group=_GROUP, name=name))
        if not found:
            raise _unknown(name)
        kind = found[0].load()
    if not isinstance(kind, SamplerKind):
        raise ConfigError(f"expected a SamplerKind behind {name!r}, got {type(kind).__name__}")
    return kind


def _unknown(name: str) -> ConfigError:
    if name in _REMOVED:
        text = f"there is no {name!r} any more: it was among the last on every search"
        return ConfigError(Fault(("name",), text, f"take {_REMOVED[name]!r}, or 'auto'"))
    known = ["auto", *_names()]
    near = near_name(name, known, cutoff=0.5)
    text = f"no sampler {name!r}, known are {', '.join(known)}"
    return ConfigError(Fault(("name",), text, f"did you mean {near!r}?" if near else ""))
