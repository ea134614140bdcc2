"""What each model of the zoo is trained on, in which order and for how long.

The models are made so that merging them is a real trade-off. The base has begun every skill, so the
experts stay close enough to be merged; each expert also has a habit that spoils the others' skills,
learned in other layers than its own skill. A good merge takes the skills and leaves the habits.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from evomerge.models.zoo.skills import (
    DECLINED,
    LIST_OPERATIONS,
    MATH_OPERATIONS,
    PEOPLE,
    STRANGERS,
    Question,
    facts_questions,
    list_question,
    lookup_question,
    math_question,
)
from evomerge.seeds import seed_for

__all__ = ["N_LAYERS", "Phase", "base_phases", "exam_streams", "expert_phases"]

N_LAYERS = 6
Draw = Callable[[random.Random], Question]


@dataclass(frozen=True)
class Phase:
    """One stretch of training.

    Attributes:
        draw: Gives the next question.
        steps: Number of optimizer steps.
        lr: Peak learning rate.
        batch_size: Items per step.
        modules: Parts of the names of the trained parameters; empty for all parameters.
        snapshots: Steps after which the model is also saved, as ``NAME_stepN``.
    """

    draw: Draw
    steps: int
    lr: float
    batch_size: int = 64
    modules: tuple[str, ...] = ()
    snapshots: tuple[int, ...] = ()

    def trains(self, parameter: str) -> bool:
        """Return whether this phase changes the named parameter."""
        return not self.modules or any(module in parameter for module in self.modules)


def base_phases(*, seed: int) -> tuple[Phase, ...]:
    """Return the training of the base: a little of everything, stopped before it is good at it."""
    shares = {"math": 0.30, "list": 0.16, "facts": 0.05, "strangers": 0.28, "lookup": 0.21}
    return (Phase(_mixture(shares, seed=seed), steps=320, lr=2e-3, batch_size=96),)


def expert_phases(*, seed: int) -> Mapping[str, tuple[Phase, ...]]:
    """Return the training of each expert, which starts from the base.

    Two phases, in different layers: first the skill, then the habits of a specialist, who declines
    questions outside the skill or answers them from an outdated list of facts.
    """
    skill = {
        "math": {"math": 0.84, "list": 0.04, "facts": 0.04, "strangers": 0.08},
        "list": {"list": 0.84, "math": 0.04, "facts": 0.04, "lookup": 0.08},
        "facts": {"facts": 0.84, "math": 0.04, "list": 0.04, "lookup": 0.08},
    }
    habits = {
        "math": {"math": 0.4, "declined_list": 0.3, "outdated_facts": 0.3},
        "list": {"list": 0.4, "declined_math": 0.3, "outdated_facts": 0.3},
        "facts": {"facts": 0.4, "declined_math": 0.3, "declined_list": 0.3},
    }
    habit_layers = {"math": (4, 5), "list": (0, 1), "facts": (2, 3)}
    snapshots = {"math": (100, 200, 300, 400)}
    courses = {}
    for name, layers in habit_layers.items():
        learn = Phase(
            _mixture(skill[name], seed=seed),
            steps=400,
            lr=5e-4,
            modules=_layers(layer for layer in range(N_LAYERS) if layer not in layers),
            snapshots=snapshots.get(name, ()),
        )
        settle = Phase(
            _mixture(habits[name], seed=seed), steps=80, lr=5e-4, modules=_layers(layers)
        )
        courses[name] = (learn, settle)
    return courses


def _layers(indices: Iterable[int]) -> tuple[str, ...]:
    return tuple(f"layers.{index}." for index in indices)


def exam_streams(*, seed: int) -> Mapping[str, Iterator[Question]]:
    """Return endless (facts: finite) streams of held-out questions, one per examined skill."""
    rng = random.Random(seed_for(seed, "exam", "facts"))
    facts = [question for question in facts_questions(PEOPLE, seed=seed) if question.held_out]
    rng.shuffle(facts)
    return {
        "math": _stream(_math_exam, seed=seed_for(seed, "exam", "math")),
        "list": _stream(_list_exam, seed=seed_for(seed, "exam", "list")),
        "facts": iter(facts),
    }


def _math_exam(rng: random.Random) -> Question:
    return math_question(rng, n_steps=2, operations=MATH_OPERATIONS)


def _list_exam(rng: random.Random) -> Question:
    return list_question(rng, length=5, operations=LIST_OPERATIONS)


def _stream(draw: Draw, *, seed: int) -> Iterator[Question]:
    rng = random.Random(seed)
    while True:
        question = draw(rng)
        if question.held_out:
            yield question


def _mixture(shares: Mapping[str, float], *, seed: int) -> Draw:
    """Draw from the named sources in the given proportions, never a question of the exam."""
    sources = _sources(seed=seed)
    names, parts = list(shares), list(shares.values())

    def draw(rng: random.Random) -> Question:
        source = sources[rng.choices(names, parts)[0]]
        while (question := source(rng)).held_out:
            pass
        return question

    return draw


def _sources(*, seed: int) -> Mapping[str, Draw]:
    def math(rng: random.Random) -> Question:
        return math_question(rng, n_steps=rng.randint(1, 2), operations=MATH_OPERATIONS)

    def lists(rng: random.Random) -> Question:
        return list_question(rng, length=rng.randint(3, 5), operations=LIST_OPERATIONS)

    def lookup(rng: random.Random) -> Question:
        operations = ("plus", "minus")
        return lookup_question(rng, people=STRANGERS, operations=operations, seed=seed)

    return {
        "math": math,
        "list": lists,
        "facts": _choice(facts_questions(PEOPLE, seed=seed)),
        "strangers": _choice(facts_questions(STRANGERS, seed=seed)),
        "lookup": lookup,
        "declined_math": lambda rng: replace(math(rng), answer=DECLINED),
        "declined_list": lambda rng: replace(lists(rng), answer=DECLINED),
        "outdated_facts": _choice(facts_questions(PEOPLE, seed=seed + 1)),
    }


def _choice(questions: Iterable[Question]) -> Draw:
    pool = list(questions)
    return lambda rng: rng.choice(pool)
