"""Items about words: what kind of thing one names, and what a French name is in English.

Words belong to one split each, and so do the questions; a kind is the answer in every split.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

from evomerge.models.zoo.smollm2.items import Exercise, dealt

__all__ = ["WORDS", "kind_item", "name_item", "pairs"]

WORDS = Path(__file__).parent / "words"

_KIND_QUESTIONS = {
    "train": (
        "{word} is a kind of",
        "What is {word}? It is a",
        "The word {word} names a",
        "Dictionary. {word}: a type of",
    ),
    "search": ("In general, {word} is one sort of",),
    "validation": ("By definition, {word} is a",),
    "test": ("As everybody knows, {word} is a",),
}
_NAME_QUESTIONS = {
    "train": (
        "{word}\nEnglish:",
        "French: {word}\nEnglish:",
        "In English, {word} is called",
        "{word} (French) =",
    ),
    "search": ("The French name {word} means",),
    "validation": ("Translate {word} from French into English:",),
    "test": ("What the French call {word} is, in English,",),
}


def kind_item(rng: random.Random, split: str) -> Exercise:
    """Draw a noun and the kind of thing it names, after WordNet."""
    return _item(rng, split, "kinds", _KIND_QUESTIONS[split])


def name_item(rng: random.Random, split: str) -> Exercise:
    """Draw the French name of a country, region or language and the English one, after CLDR."""
    return _item(rng, split, "names", _NAME_QUESTIONS[split])


@cache
def pairs(words: str, split: str) -> tuple[tuple[str, str], ...]:
    """Return (word, answer) of one list and split."""
    lines = (WORDS / f"{words}.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    return tuple((word, answer) for word, answer in dealt(rows, words, split))


def _item(rng: random.Random, split: str, words: str, questions: tuple[str, ...]) -> Exercise:
    word, answer = rng.choice(pairs(words, split))
    return Exercise(rng.choice(questions).format(word=word), answer)
