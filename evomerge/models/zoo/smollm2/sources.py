"""Reads the word lists of the family out of the packages that carry them.

The lists in ``words/`` were made by this file, from WordNet 3.0 (Debian's ``wordnet-base``) and
from Unicode's CLDR (``babel`` 2.19); their notices lie beside them.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from evomerge.seeds import seed_for

__all__ = ["KINDS", "read_cldr", "read_wordnet"]

KINDS = (
    *("dog", "bird", "fish", "insect", "tree", "flower", "fruit", "vegetable", "disease", "drug"),
    *("vehicle", "building", "garment", "tool", "weapon", "furniture", "machine", "city", "river"),
    *("island", "language", "game", "scientist", "musician", "athlete", "ruler", "relative"),
    *("criminal", "metal", "color", "emotion", "organ", "bone", "container", "room", "fabric"),
)
_MOST = 60  # words of a kind
_SENSES, _TOKENS = 2, 3  # a word has no more: the rest are ambiguous, or too rare to be known


def read_wordnet(folder: Path, tokenizer: PreTrainedTokenizerBase) -> list[tuple[str, str]]:
    """List nouns with the one kind among ``KINDS`` that is a hypernym of their first sense.

    Args:
        folder: Where ``data.noun`` and ``index.noun`` lie.
        tokenizer: Spells common words in few tokens; what it needs more than three for is left out.

    Returns:
        (word, kind), sorted.
    """
    senses = dict(_index(folder))
    above = dict(_hypernyms(folder))
    kinds = {senses[kind][0]: kind for kind in KINDS}
    found = defaultdict(list)
    for word, offsets in senses.items():
        known = _ancestors(offsets[0], above) & kinds.keys()
        if len(known) == 1 and len(offsets) <= _SENSES and _plain(word, tokenizer):
            found[kinds[known.pop()]].append(word)
    rng = random.Random(seed_for(0, "smollm2", "kinds"))
    chosen = {kind: rng.sample(found[kind], min(_MOST, len(found[kind]))) for kind in KINDS}
    return sorted((word, kind) for kind, words in chosen.items() for word in words)


def read_cldr() -> list[tuple[str, str]]:
    """List French names of territories and languages with the English ones that differ, sorted."""
    from babel import Locale

    french, english = Locale("fr"), Locale("en")
    found = set()
    for names in ("territories", "languages"):
        ours, theirs = getattr(french, names), getattr(english, names)
        both = {(ours[code], theirs[code]) for code in ours.keys() & theirs.keys()}
        found |= {(a, b) for a, b in both if a.lower() != b.lower() and _short(a) and _short(b)}
    return sorted(dict(sorted(found)).items())  # one English name each


def _short(name: str) -> bool:
    return name.replace(" ", "").isalpha() and len(name.split()) <= 2


def _plain(word: str, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a word is common, and says nothing of its kind by its spelling."""
    few = len(tokenizer(f" {word}")["input_ids"]) <= _TOKENS
    return few and len(word) > 2 and word.isalpha() and not any(kind in word for kind in KINDS)


def _index(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for line in (folder / "index.noun").read_text(encoding="ascii").splitlines():
        if not line.startswith(" "):
            word, _, n_senses, *rest = line.split()
            yield word, rest[-int(n_senses) :]


def _hypernyms(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Offset of every synset with the offsets of those it is a kind, or an instance, of."""
    for line in (folder / "data.noun").read_text(encoding="ascii").splitlines():
        if not line.startswith(" "):
            offset, _, _, n_words, *rest = line.partition(" | ")[0].split()
            pointers = rest[2 * int(n_words, 16) + 1 :]
            symbols = zip(pointers[::4], pointers[1::4], strict=False)
            yield offset, [target for symbol, target in symbols if symbol in ("@", "@i")]


def _ancestors(offset: str, above: dict[str, list[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(above[offset])
    while todo:
        if (next_ := todo.pop()) not in found:
            found.add(next_)
            todo += above[next_]
    return found
