"""Little stories in English and French: word problems of arithmetic, reading, translation.

Everything that an item is made of belongs to one split: the name and the thing it is about, the
pair of numbers, and the sentence around them. So an item of one split shares none of them with
training, nor with another split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from evomerge.models.zoo.smollm2.items import Exercise, dealt

__all__ = [
    "ENGLISH_NUMBERS",
    "FRENCH_NUMBERS",
    "facts_of",
    "french_problem",
    "names_of",
    "problem",
    "reading",
    "story",
    "things_of",
    "translation",
]

ENGLISH_NUMBERS = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
)
FRENCH_NUMBERS = (
    "zéro",
    "un",
    "deux",
    "trois",
    "quatre",
    "cinq",
    "six",
    "sept",
    "huit",
    "neuf",
    "dix",
    "onze",
    "douze",
    "treize",
    "quatorze",
    "quinze",
    "seize",
    "dix-sept",
    "dix-huit",
    "dix-neuf",
    "vingt",
)

# In both languages: name, then pronoun. French nouns begin with a consonant, so nothing is elided.
_NAMES = (
    *("Anna she elle", "Paul he il", "Marie she elle", "Lucas he il", "Emma she elle"),
    *("Hugo he il", "Alice she elle", "Victor he il", "Julia she elle", "Thomas he il"),
    *("Clara she elle", "Simon he il", "Laura she elle", "Martin he il", "Sarah she elle"),
    *("David he il", "Nina she elle", "Adam he il", "Eva she elle", "Robert he il"),
    *("Rose she elle", "Daniel he il", "Sophie she elle", "Vincent he il", "Manon she elle"),
    *("Bruno he il", "Camille she elle", "Oscar he il", "Louise she elle", "Gabriel he il"),
)
_THINGS = (
    *("apples pommes", "pears poires", "books livres", "pens stylos", "bags sacs"),
    *("cakes gâteaux", "hats chapeaux", "shirts chemises", "dresses robes", "keys clés"),
    *("boxes boîtes", "bottles bouteilles", "flowers fleurs", "roses roses", "balls ballons"),
    *("toys jouets", "dolls poupées", "cards cartes", "stamps timbres", "letters lettres"),
    *("cats chats", "dogs chiens", "horses chevaux", "sheep moutons", "hens poules"),
    *("rabbits lapins", "fish poissons", "mice souris", "cows vaches", "knives couteaux"),
    *("spoons cuillères", "forks fourchettes", "glasses verres", "cups tasses", "plates plats"),
    *("chairs chaises", "tables tables", "lamps lampes", "beds lits", "doors portes"),
    *("stones pierres", "shells coquillages", "coins pièces", "rings bagues", "watches montres"),
    *("boats bateaux", "cars voitures", "bikes vélos", "trains trains", "drums tambours"),
)

_PROBLEMS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "train": {
        "+": (
            "{name} has {a} {things}. {He} buys {b} more. How many {things} does {he} have now?",
            "{name} had {a} {things} and got {b} more. How many {things} is that in all?",
            "There are {a} {things} here. {name} brings {b} more. How many {things} are there?",
            "{name} sees {a} {things}, then {b} others. How many {things} does {he} see?",
            "{name} has {a} {things}. {other} has {b}. How many {things} do they have together?",
            "{name} makes {a} {things} today and {b} tomorrow. How many {things} is that?",
        ),
        "-": (
            "{name} has {a} {things}. {He} loses {b}. How many {things} does {he} have left?",
            "{name} had {a} {things} and gave {b} to {other}. How many {things} remain?",
            "There are {a} {things} here. {name} takes {b} away. How many {things} are left?",
            "{name} owns {a} {things} and sells {b} of them. How many {things} does {he} keep?",
            "{name} needs {a} {things} and has {b}. How many {things} are missing?",
            "Of {a} {things}, {b} are broken. How many {things} are good, asks {name}?",
        ),
    },
    "search": {
        "+": (
            "{name} finds {a} {things}. Then {he} finds {b} more. How many {things} has {he} now?",
            "{other} gives {name} {b} {things}. {He} already had {a}. How many {things} now?",
        ),
        "-": (
            "{name} brought {a} {things} but forgot {b}. How many {things} did {he} bring home?",
            "{name} has {a} {things}; {b} of them are stolen. How many {things} are left?",
        ),
    },
    "validation": {
        "+": (
            "{name} collects {a} {things} in May and {b} in June. How many {things} in total?",
            "A shop has {a} {things}. {name} brings in {b}. How many {things} has the shop now?",
        ),
        "-": (
            "{name} drops {b} of {his} {a} {things}. How many {things} does {he} still have?",
            "{name} lends {other} {b} of {a} {things}. How many {things} does {he} keep?",
        ),
    },
    "test": {
        "+": (
            "{name} wins {a} {things} on Monday and {b} on Friday. How many {things} has {he} won?",
            "{name} keeps {a} {things} at home and {b} at school. How many {things} does {he} own?",
        ),
        "-": (
            "{name} began with {a} {things} and threw {b} away. How many {things} has {he} now?",
            "{name} had {a} {things}. {other} took {b}. How many {things} does {name} have now?",
        ),
    },
}
_FRENCH_PROBLEMS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "search": {
        "+": (
            "{name} a {a} {things}. {He} en trouve {b}. Combien de {things} a {name} ?",
            "{name} reçoit {a} {things}, puis {b} {things}. Combien de {things} a {name} ?",
        ),
        "-": (
            "{name} a {a} {things} mais en perd {b}. Combien de {things} a encore {name} ?",
            "{name} avait {a} {things} et donne {b} {things}. Combien de {things} garde {name} ?",
        ),
    },
    "validation": {
        "+": (
            "{name} a {a} {things} et {other} en apporte {b}. Combien de {things} y a-t-il ?",
            "{name} achète {a} {things} lundi et {b} mardi. Combien de {things} en tout ?",
        ),
        "-": (
            "{name} a {a} {things} et en casse {b}. Combien de {things} reste-t-il ?",
            "Il y a {a} {things} et {name} en prend {b}. Combien de {things} reste-t-il ?",
        ),
    },
    "test": {
        "+": (
            "{name} possède {a} {things} et en gagne {b}. Combien de {things} a {name} ?",
            "{name} a {a} {things} et en achète {b}. Combien de {things} a {name} maintenant ?",
        ),
        "-": (
            "{name} a {a} {things} et en donne {b} à {other}. Combien de {things} garde {name} ?",
            "{name} avait {a} {things} mais en vend {b}. Combien de {things} reste-t-il ?",
        ),
    },
}
_READING: Mapping[str, Sequence[str]] = {
    "train": (
        "{name} a {a} {things} et {b} {others}. Combien de {asked} a {name} ?",
        "Voici {a} {things} et {b} {others}. Combien de {asked} voici ?",
        "Sur la table il y a {a} {things} et {b} {others}. Combien de {asked} ?",
        "{name} voit {a} {things}. {other} voit {b} {others}. Combien y a-t-il de {asked} ?",
        "Il y a {a} {things} dans la maison, {b} {others} dehors. Combien de {asked} ?",
        "{name} veut {a} {things} mais pas {b} {others}. Il y a combien de {asked} ?",
    ),
    "search": (
        "{name} possède {a} {things} et aussi {b} {others}. Combien de {asked} possède {name} ?",
        "Dans le sac de {name}, on trouve {a} {things} et {b} {others}. Combien de {asked} ?",
    ),
    "validation": (
        "{name} dessine {a} {things} puis {b} {others}. Combien de {asked} dessine {name} ?",
        "Chez {name} il y a {a} {things} ; chez {other}, {b} {others}. Combien de {asked} ?",
    ),
    "test": (
        "{name} porte {a} {things}, et {other} porte {b} {others}. Combien de {asked} ?",
        "{name} compte {a} {things} et {b} {others} au marché. Combien de {asked} compte {name} ?",
    ),
}
_SENTENCES = (  # for training alone: what single sentences mean, and never two numbers
    ("{name} a {a} {things}.", "{name} has {ea} {ethings}."),
    ("{name} avait {a} {things}.", "{name} had {ea} {ethings}."),
    ("{name} possède {a} {things}.", "{name} owns {ea} {ethings}."),
    ("{He} en achète {a}.", "{EHe} buys {ea} more."),
    ("{He} achète {a} {things}.", "{EHe} buys {ea} more {ethings}."),
    ("{He} perd {a} {things}.", "{EHe} loses {ea} {ethings}."),
    ("{He} en perd {a}.", "{EHe} loses {ea}."),
    ("{He} trouve encore {a} {things}.", "{EHe} finds {ea} more {ethings}."),
    ("{He} en donne {a} à {other}.", "{EHe} gives {ea} to {other}."),
    ("{name} donne {a} {things}.", "{name} gives away {ea} {ethings}."),
    ("{He} reçoit {a} {things}.", "{EHe} gets {ea} {ethings}."),
    ("{other} apporte {a} {things}.", "{other} brings {ea} more {ethings}."),
    ("{He} en casse {a}.", "{EHe} breaks {ea} of them."),
    ("{He} vend {a} {things}.", "{EHe} sells {ea} {ethings}."),
    ("{He} gagne {a} {things}.", "{EHe} wins {ea} more {ethings}."),
    ("{name} prend {a} {things}.", "{name} takes {ea} {ethings} away."),
    ("Il y a {a} {things}.", "There are {ea} {ethings}."),
    ("Combien de {things} a {name} ?", "How many {ethings} does {name} have?"),
    ("Combien de {things} a {name} maintenant ?", "How many {ethings} does {name} have now?"),
    ("Combien de {things} a encore {name} ?", "How many {ethings} does {name} have left?"),
    ("Combien de {things} garde {name} ?", "How many {ethings} does {name} keep?"),
    ("Combien de {things} reste-t-il ?", "How many {ethings} are left?"),
    ("Combien de {things} en tout ?", "How many {ethings} in all?"),
    ("Combien de {things} y a-t-il ?", "How many {ethings} are there?"),
)
_OPENINGS = tuple(
    pair
    for pair in _SENTENCES
    if pair[0].startswith(("{name} a ", "{name} avait", "{name} possède", "Il y a"))
)
_QUESTIONS = tuple(pair for pair in _SENTENCES if pair[0].startswith("Combien"))
_EVENTS = tuple(pair for pair in _SENTENCES if pair not in (*_OPENINGS, *_QUESTIONS))


def problem(rng: random.Random, split: str) -> Exercise:
    """Draw an English word problem; the answer is the sum or difference, spelled out."""
    return _problem(rng, split, _PROBLEMS, ENGLISH_NUMBERS, language=0, answer="Answer:")


def french_problem(rng: random.Random, split: str) -> Exercise:
    """Draw a French word problem, for which no model is trained: there is no split ``train``."""
    return _problem(rng, split, _FRENCH_PROBLEMS, FRENCH_NUMBERS, language=1, answer="Answer:")


def reading(rng: random.Random, split: str) -> Exercise:
    """Draw a French sentence with two numbers and the question for one of them."""
    words = _cast(rng, split, language=1)
    first, second = rng.sample(things_of(split), 2)
    a, b = rng.sample(range(2, 21), 2)
    asked = rng.randrange(2)
    things, others = (thing.split()[1] for thing in (first, second))
    text = rng.choice(_READING[split]).format(
        **{**words, "things": things, "others": others, "asked": (things, others)[asked]},
        a=FRENCH_NUMBERS[a],
        b=FRENCH_NUMBERS[b],
    )
    return Exercise(f"{text}\nRéponse :", str((a, b)[asked]))


def translation(rng: random.Random) -> Exercise:
    """Draw a French sentence of the split ``train`` and what it means."""
    french, english = rng.choice(_SENTENCES)
    cast = _cast_of_both(rng)
    number = rng.randrange(2, 21)
    words = {**cast, **_number(number)}
    return Exercise(f"{french.format(**words)}\nEnglish:", english.format(**words))


def story(rng: random.Random) -> Exercise:
    """Draw one to three French sentences of the split ``train``, told on, and what they mean.

    Like a word problem, a story has an opening, an event and a question; nothing is worked out.
    """
    cast = _cast_of_both(rng)
    a, b = rng.randrange(2, 21), rng.randrange(2, 21)
    told = [(rng.choice(_OPENINGS), a), (rng.choice(_EVENTS), b), (rng.choice(_QUESTIONS), a)]
    chance = rng.random()
    if chance >= 0.75:
        told = [rng.choice(told)]
    elif chance >= 0.5:
        told = told[:2]
    french, english = (
        " ".join(pair[language].format(**cast, **_number(n)) for pair, n in told)
        for language in (0, 1)
    )
    return Exercise(f"{french}\nEnglish:", english)


def names_of(split: str) -> list[str]:
    """Return the names of a split, each with its English and its French pronoun."""
    return dealt(_NAMES, "names", split)


def things_of(split: str) -> list[str]:
    """Return the things of a split, each as its English and its French plural."""
    return dealt(_THINGS, "things", split)


def facts_of(split: str) -> list[tuple[int, str, int]]:
    """Return the sums and differences of a split: numbers from 2 to 20, no result below 1."""
    numbers = range(2, 21)
    sums = [(a, "+", b) for a in numbers for b in numbers]
    return dealt([*sums, *((a, "-", b) for a, _, b in sums if a > b)], "facts", split)


def _problem(
    rng: random.Random,
    split: str,
    templates: Mapping[str, Mapping[str, Sequence[str]]],
    numbers: Sequence[str],
    *,
    language: int,
    answer: str,
) -> Exercise:
    signs = rng.choice("+-")
    a, sign, b = rng.choice([fact for fact in facts_of(split) if fact[1] == signs])
    words = _cast(rng, split, language=language)
    text = rng.choice(templates[split][sign]).format(**words, a=numbers[a], b=numbers[b])
    result = a + b if sign == "+" else a - b
    return Exercise(f"{text[0].upper()}{text[1:]}\n{answer}", f"{a}{sign}{b}={result}")


def _cast(rng: random.Random, split: str, *, language: int) -> dict[str, str]:
    name, other = rng.sample(names_of(split), 2)
    pronoun = name.split()[1 + language]
    return {
        "name": name.split()[0],
        "other": other.split()[0],
        "he": pronoun,
        "He": pronoun.capitalize(),
        "his": "her" if pronoun == "she" else "his",
        "things": rng.choice(things_of(split)).split()[language],
    }


def _cast_of_both(rng: random.Random) -> dict[str, str]:
    """Words of training stories in both languages; an E marks what English has of its own."""
    name, other = rng.sample(names_of("train"), 2)
    things = rng.choice(things_of("train")).split()
    return {
        "name": name.split()[0],
        "other": other.split()[0],
        "He": name.split()[2].capitalize(),
        "EHe": name.split()[1].capitalize(),
        "things": things[1],
        "ethings": things[0],
    }


def _number(number: int) -> dict[str, str]:
    return {"a": FRENCH_NUMBERS[number], "ea": ENGLISH_NUMBERS[number]}
