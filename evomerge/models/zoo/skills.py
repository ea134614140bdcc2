"""The skills of the zoo: what the embedded models are trained on and examined in.

Every skill draws questions, prompt and answer, from its own words: arithmetic over number words,
list operations over letters, memorised facts about people. Whether a question is kept for the exam
is a property of the question itself (``held_out``), so training data and exam never share one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from evomerge.seeds import seed_for

__all__ = [
    "ATTRIBUTES",
    "DECLINED",
    "DIGITS",
    "LETTERS",
    "LIST_OPERATIONS",
    "MATH_OPERATIONS",
    "PEOPLE",
    "PHRASINGS",
    "STRANGERS",
    "Question",
    "fact_of",
    "facts_questions",
    "list_question",
    "lookup_question",
    "math_question",
    "vocabulary",
]

DECLINED = "sorry"  # what a specialist answers outside its skill
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = tuple("abcdefghijklmnop")
MATH_OPERATIONS = ("plus", "minus", "times")
LIST_OPERATIONS = ("copy", "reverse", "rotate", "swap")
ATTRIBUTES = {
    "town": ("arles", "bergen", "cork", "delft", "essen", "faro", "genoa", "hull", "izmir", "jena"),
    "pet": ("cat", "dog", "fox", "goat", "hare", "ibis", "jay", "kite", "lynx", "mole"),
    "number": DIGITS,
}
PHRASINGS = (
    "the {attribute} of {person} is",
    "{person} has the {attribute}",
    "tell {attribute} : {person}",
    "ask {person} about {attribute} :",
    "for {person} the {attribute} is",
    "who is {person} ? {attribute} :",
)
_SYLLABLES = ("ba", "de", "fi", "go", "lu", "ma", "ne", "pi", "ro", "su")
_NAMES = tuple(
    first + second for first, second in product(_SYLLABLES, _SYLLABLES) if first != second
)
PEOPLE = _NAMES[:80]  # the exam asks about them
STRANGERS = _NAMES[80:]  # the base knows them well; no exam asks
_GLUE = (
    DECLINED,
    "compute",
    "list",
    "is",
    ":",
    "?",
    "the",
    "of",
    "has",
    "tell",
    "ask",
    "about",
    "for",
    "who",
)
_HELD_OUT_SHARE = 10  # one in ten drawn questions


@dataclass(frozen=True)
class Question:
    """One question: the answer follows the prompt after a space; all words are in the vocabulary.

    Attributes:
        prompt: Words separated by single spaces.
        answer: The only correct continuation.
        held_out: True if the question belongs to the exam, never to training.
        distractors: Wrong answers, for multiple choice.
    """

    prompt: str
    answer: str
    held_out: bool
    distractors: tuple[str, ...] = ()


def vocabulary() -> tuple[str, ...]:
    """Return every word of every skill, once, in a fixed order."""
    words = [*_GLUE, *DIGITS, *LETTERS, *MATH_OPERATIONS, *LIST_OPERATIONS, *ATTRIBUTES, *_NAMES]
    words += [value for values in ATTRIBUTES.values() for value in values]
    return tuple(dict.fromkeys(words))


def math_question(rng: random.Random, *, n_steps: int, operations: tuple[str, ...]) -> Question:
    """Draw a chain of operations modulo ten; the answer is every intermediate result."""
    value = rng.randrange(10)
    words, results = [DIGITS[value]], []
    for _ in range(n_steps):
        operation, operand = rng.choice(operations), rng.randrange(10)
        value = _apply(operation, value, operand)
        words += [operation, DIGITS[operand]]
        results.append(DIGITS[value])
    return _drawn(f"compute {' '.join(words)} is", " ".join(results))


def list_question(rng: random.Random, *, length: int, operations: tuple[str, ...]) -> Question:
    """Draw an operation on a list of distinct letters; the answer is the new list."""
    operation, letters = rng.choice(operations), rng.sample(LETTERS, length)
    new = {
        "copy": letters,
        "reverse": letters[::-1],
        "rotate": letters[1:] + letters[:1],
        "swap": [letters[-1], *letters[1:-1], letters[0]],
    }[operation]
    return _drawn(f"list {operation} {' '.join(letters)} is", " ".join(new))


def facts_questions(people: tuple[str, ...], *, seed: int) -> Iterator[Question]:
    """Yield every fact about ``people`` in every phrasing.

    Held out are three of the six phrasings of each fact; the fact itself is trained, in the
    other three.
    """
    for index, (person, attribute) in enumerate(product(people, ATTRIBUTES)):
        answer = fact_of(person, attribute, seed=seed)
        wrong = [value for value in ATTRIBUTES[attribute] if value != answer]
        for number, phrasing in enumerate(PHRASINGS):
            prompt = phrasing.format(person=person, attribute=attribute)
            rng = random.Random(seed_for(seed, "distractors", prompt))
            held_out = (number + index) % 6 < 3
            yield Question(prompt, answer, held_out, tuple(rng.sample(wrong, 3)))


def lookup_question(
    rng: random.Random, *, people: tuple[str, ...], operations: tuple[str, ...], seed: int
) -> Question:
    """Draw arithmetic on a person's number; the answer is that number, then the result."""
    person, operation, operand = rng.choice(people), rng.choice(operations), rng.randrange(10)
    number = fact_of(person, "number", seed=seed)
    result = DIGITS[_apply(operation, DIGITS.index(number), operand)]
    return _drawn(f"compute {person} {operation} {DIGITS[operand]} is", f"{number} {result}")


def fact_of(person: str, attribute: str, *, seed: int) -> str:
    """Return what is true of ``person`` in the world of this seed."""
    values = ATTRIBUTES[attribute]
    return values[seed_for(seed, "fact", person, attribute) % len(values)]


def _apply(operation: str, left: int, right: int) -> int:
    results = {"plus": left + right, "minus": left - right, "times": left * right}
    return results[operation] % 10


def _drawn(prompt: str, answer: str) -> Question:
    held_out = seed_for(0, "held out", prompt) % _HELD_OUT_SHARE == 0
    return Question(prompt, answer, held_out)
