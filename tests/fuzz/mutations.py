"""How inputs are damaged: their data, knowing its structure, their text, their bytes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "HOSTILE_TEXT",
    "SECRETS",
    "damage_bytes",
    "damage_data",
    "damage_place",
    "damage_text",
    "damaged_json",
]

SECRETS = ("s3cr3tpw", "hf_" + "Zq9" * 12)  # none of them may be shown
# Beside the folder that is read; see ``guard``.
_OUTSIDE = ("../outside/model.safetensors", "../outside", "../outside/config.json")

_BOMB = f"&b [&c [{', '.join(['[lol, lol, lol, lol, lol, lol, lol]'] * 9)}]{', *c' * 20_000}]"
HOSTILE_TEXT = (
    *("no", "on", "~", "''", "1:30", "010", "12:61", "1e-3", "1e400", ".inf", "-.inf", ".nan"),
    *("-1", "0", "0.5", "10000000", "9" * 90, "9" * 5000, "0x" + "f" * 5000, "2026-13-45", "<<"),
    *("'a\\0b'", '"a\\0b"', '"\\ud800"', '"\\U00110000"', '"\\x1b[31m"', "x" * 5000, "%x", "*gone"),
    *("!!int x", "!!timestamp x", "!!binary eA==", "!function f.g", "!!python/name:os.system"),
    *("[" * 200, "{a: " * 100, "[[[[]]]]", "{}", "[]", "{? {a: b} : c}", "&a [*a]", _BOMB),
    *("zoo:", "zoo:nobody", "/dev/zero", "/proc/self/mem", "../../..", "a/b@c", "''"),
    *("{{a: 1}: 2}", "{model: 1, minus: 2}", "{adapter: /x, on: zoo:base}", "- a", "---", "..."),
    *(f"postgresql://me:{SECRETS[0]}@h/d", f"https://u:{SECRETS[1]}@huggingface.co/a/b"),
)
_NUMBERS = (
    *(-1, 0, 1, 3, -(2**63), 2**31, 2**53 + 1, 2**63, 2**64, 10**18, 10**40),
    *(0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), float("-inf")),
)
_TEXTS = (
    *("", " ", "x" * 5000, "a\0b", "\x1b[31m", "\ud800", "ﷺ\u202e\u2028", "🙂", "é", "null", "nan"),
    *("float32", "torch.float8", "../x", "../../x", "/etc/passwd", "/dev/zero", "a/../../b", "."),
    *("(a+)+$", "**", "%s%n", "{{7*7}}", "{0.__class__}", "$(id)", "os.system", *_OUTSIDE),
    *(f"postgresql://me:{SECRETS[0]}@h/d", f"https://u:{SECRETS[1]}@huggingface.co/a/b"),
)
_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, [1, "a", None])
_Change = Callable[[Any, random.Random], Any]
_SCALAR = re.compile(r"(?<=[\s\[{,:])[\w.:-]+(?=[\s\]},])")


def damage_data(content: Any, rng: random.Random) -> Any:
    """Change one to three places of plain data; the input is left alone."""
    content = json.loads(json.dumps(content))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(content))
        if not places:
            return hostile_value(content, rng)
        damage_place(*rng.choice(places), rng)
    return content


def damage_place(inside: Any, key: Any, rng: random.Random) -> None:
    """Change what a mapping or a list has at one place."""
    kind = rng.random()
    if kind < 0.6:
        inside[key] = hostile_value(inside[key], rng)
    elif kind < 0.75:
        del inside[key]
    elif isinstance(inside, dict) and kind < 0.9:
        inside[rng.choice((*_TEXTS, key.upper(), f"{key} ", f"{key}s"))] = inside.pop(key)
    elif isinstance(inside, list):
        inside[key:key] = [inside[key]] * rng.choice((1, 2, 1000))
    else:
        inside[f"{key}_{rng.randrange(9)}"] = inside[key]


def hostile_value(value: Any, rng: random.Random) -> Any:
    """Put a number, a text, another type or a deep nest in place of a value."""
    choices: tuple[Callable[[], Any], ...] = (
        lambda: rng.choice(_NUMBERS),
        lambda: rng.choice(_TEXTS),
        lambda: rng.choice(_OTHERS),
        lambda: _nested(rng.choice((5, 70, 120))),
        lambda: [value],
        lambda: {"a": value},
        lambda: str(value),
        lambda: -value if isinstance(value, int | float) else rng.choice(_NUMBERS),
    )
    return rng.choice(choices)()


def damage_text(text: str, rng: random.Random) -> str:
    """Put something hostile in place of one or two values or keys, or damage lines."""
    for _ in range(rng.randint(1, 2)):
        text = rng.choices((_replaced, _swapped, _lines_changed, _inserted), (12, 3, 3, 2))[0](
            text, rng
        )
    return text


def damage_bytes(content: bytes, rng: random.Random) -> bytes:
    """Cut, flip, repeat or fill a file."""
    at = rng.randrange(len(content) + 1)
    some = rng.randbytes(rng.choice((1, 8, 300)))
    flipped = bytearray(content)
    for _ in range(rng.choice((1, 1, 8, 100))):
        if flipped:
            flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
    return rng.choice(
        (
            content[:at],
            content[at:],
            content[:at] + some + content[at:],
            content[:at] + some + content[at + len(some) :],
            content[:at] + bytes(len(content) - at),
            content + content,
            bytes(flipped),
            bytes(flipped),
            b"",
        )
    )


def damaged_json(path: Path, rng: random.Random) -> None:
    """Damage a JSON file: mostly its data, else its text."""
    text = path.read_text(encoding="utf-8")
    if rng.random() < 0.75:
        changed = json.dumps(damage_data(json.loads(text), rng))
        if rng.random() < 0.1:  # a key twice
            changed = changed.replace("{", '{"model_type": 1, "model_type": "llama", ', 1)
        path.write_text(changed)
    elif rng.random() < 0.2:
        path.write_text("[" * 100_000 + text)
    else:
        path.write_bytes(damage_bytes(text.encode(), rng))


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(content) if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], dict | list):
            yield from _places(content[key])


def _nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def _replaced(text: str, rng: random.Random) -> str:
    start, end = rng.choice(_scalars(text))
    return text[:start] + rng.choice(HOSTILE_TEXT) + text[end:]


def _swapped(text: str, rng: random.Random) -> str:
    (start, end), other = rng.choice(_scalars(text)), rng.choice(_scalars(text))
    return text[:start] + text[slice(*other)] + text[end:]


def _lines_changed(text: str, rng: random.Random) -> str:
    lines = text.splitlines(keepends=True) or [""]
    lines[rng.randrange(len(lines))] = rng.choice(["", *lines, "--- \n", "\t\n", "? \n"])
    return "".join(lines)


def _inserted(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text) + 1)
    return text[:at] + chr(rng.choice([0, 9, 10, 35, 38, 42, 58, 0x2028, 0xFFFE])) + text[at:]


def _scalars(text: str) -> list[tuple[int, int]]:
    return [found.span() for found in _SCALAR.finditer(text)] or [(0, 0)]
