"""Broken files of every kind end in clear lines: never in a traceback, never in minutes."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.config.load import load_experiment
from evomerge.config.presets import Presets
from evomerge.errors import EvomergeError
from evomerge.recipe.files import load_recipe
from evomerge.runs.parts import build_space
from evomerge.space.protocol import ModelSet

EXPERIMENT = """\
models: {base: zoo:base, experts: {math: zoo:math, list: zoo:list}}
search_space:
  method: ties
  depth: {groups: 3}
  genes:
    coefficient: {range: [0.0, 1.5], per: [depth, expert]}
  fixed: {density: 0.4}
evaluators: [{tasks: [zoo_math], include_path: TASKS, limit: 20, seed: 1}]
objectives: [{task: zoo_math, metric: exact_match}]
constraints: [{task: zoo_math, metric: exact_match, at_least: base - 0.1}]
seeds: {parents: true, task_arithmetic: [0.3, 1e-1]}
sampler: {name: pycma, sigma0: 0.2}
budget: {trials: 10, wall_clock: 1h 30m}
execution: {executor: inline, workers: auto}
race: careful
seed: 7
""".replace("TASKS", str(Presets().names("evaluators")["zoo"].parent / "tasks"))
PATHS = EXPERIMENT.replace(
    EXPERIMENT[EXPERIMENT.index("  method") : EXPERIMENT.index("evaluators")],
    """\
  kind: dataflow
  encoding: {name: threshold, repeats: 3}
  max_hops: 9
  scale: {range: [0.5, 2.0], per: slot}
""",
)
RECIPE = """\
base: zoo:base
experts: {math: zoo:math, list: zoo:list}
seed: 3
dtype: float32
rules:
- where: {layers: [0, 3], kinds: [mlp], names: "layers"}
  method: dare_ties
  parameters: {coefficient: {math: 0.5, list: 0.5}, density: 0.4}
- method: linear
  parameters: {coefficient: 0.5}
"""
MERGEKIT = """\
merge_method: ties
base_model: zoo:base
slices:
- sources:
  - {model: zoo:math, layer_range: [0, 6], parameters: {weight: [0.1, 0.9], density: 0.5}}
  - {model: zoo:list, layer_range: [0, 6], parameters: {weight: 0.4}}
  - {model: zoo:base, layer_range: [0, 6]}
parameters: {normalize: true, int8_mask: true}
dtype: float32
"""
BOMB = f"&b [&c [{', '.join(['[lol, lol, lol, lol, lol, lol, lol]'] * 9)}]{', *c' * 20_000}]"
HOSTILE = [
    *("no", "on", "~", "''", "1:30", "010", "12:61", "1e-3", "1e400", ".inf", "-.inf", ".nan"),
    *("-1", "0", "0.5", "10000000", "9" * 90, "9" * 5000, "0x" + "f" * 5000, "2026-13-45", "<<"),
    *("'a\\0b'", '"a\\0b"', '"\\ud800"', '"\\U00110000"', '"\\x1b[31m"', "x" * 5000, "%x", "*gone"),
    *("!!int x", "!!timestamp x", "!!binary eA==", "!function f.g", "!!python/name:os.system"),
    *("[" * 200, "{a: " * 100, "[[[[]]]]", "{}", "[]", "{? {a: b} : c}", "&a [*a]", BOMB),
    *("zoo:", "zoo:nobody", "/dev/zero", "/proc/self/mem", "../../..", "a/b@c"),
    *("{{a: 1}: 2}", "{model: 1, minus: 2}", "{adapter: /x, on: zoo:base}", "- a", "---", "..."),
]
SCALAR = re.compile(r"(?<=[\s\[{,:])[\w.:-]+(?=[\s\]},])")


def mutated(text: str, rng: random.Random) -> str:
    """Put something hostile in place of one or two values or keys, or damage the text."""
    for _ in range(rng.randint(1, 2)):
        kind = rng.random()
        places = list(SCALAR.finditer(text))
        place = rng.choice(places or [re.match("", text)])
        start, end = place.span()
        if kind < 0.6:
            text = text[:start] + rng.choice(HOSTILE) + text[end:]
        elif kind < 0.75:
            other = rng.choice(places or [place])
            text = text[:start] + other.group() + text[end:]
        elif kind < 0.9:
            lines = text.splitlines(keepends=True)
            lines[rng.randrange(len(lines))] = rng.choice(["", *lines, "--- \n", "\t\n", "? \n"])
            text = "".join(lines)
        else:
            at = rng.randrange(len(text))
            text = (
                text[:at] + chr(rng.choice([0, 9, 10, 35, 38, 42, 58, 0x2028, 0xFFFE])) + text[at:]
            )
    return text


def as_experiment(path: Path) -> object:
    experiment = load_experiment(path, Presets())
    assert isinstance(experiment.search_space, dict)
    found = experiment.models
    models = ModelSet(found.base, found.experts, n_layers=6, dtype=found.dtype)
    return build_space(experiment.search_space, models).describe()


KINDS = {"experiment": (EXPERIMENT, as_experiment), "paths": (PATHS, as_experiment),
         "recipe": (RECIPE, load_recipe),
         "mergekit": (MERGEKIT, load_recipe)}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    text, read = KINDS[kind]
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert read(file)  # sound as it is
    rng = random.Random(kind)
    faults = [fault_of(read, file, mutated(text, rng)) for _ in range(150)]
    assert sum(fault is not None for fault in faults) > 60
    assert all(len(fault) < 20_000 for fault in faults if fault is not None)


def fault_of(read: Callable[[Path], object], file: Path, text: str) -> str | None:
    """Read a file; return what is wrong with it, if it is refused as a user's mistake."""
    file.write_text(text, encoding="utf-8")
    try:
        read(file)
    except (EvomergeError, OSError) as err:  # what ends a command with status 2
        return str(err)
    except Exception as err:
        raise AssertionError(f"{type(err).__name__}: {err}\n{text[:3000]}") from err
    return None
