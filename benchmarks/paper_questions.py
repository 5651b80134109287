"""The questions of the paper's experiment: the trained skill, and families of questions that no run is trained on."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from paper_plan import WORDY

from spotcli.evaluation.tasks import load_task
from spotcli.grading import grade
from spotcli.problems import arithmetic
from spotcli.records import Message, Problem

TEST = 320
"""Test problems."""

NEAR = ("one-step", "in-words")
"""Families that ask the same sums in another way."""

FAR = ("largest", "lookup", "reverse", "capitals", "past", "plural")
"""Families of other skills."""

FAMILY_SIZE = 40
"""Questions per family."""

Drawn = tuple[str, list[Message], Callable[[str], bool]]
"""A question without its family: an id, a chat, and whether an answer is right."""


@dataclass(frozen=True)
class Question:
    """A chat to answer, and a check whether an answer is right."""

    id: str
    messages: list[Message]
    is_right: Callable[[str], bool]


def turns(*texts: str) -> list[Message]:
    """Return a chat that the user begins."""
    return [{"role": "assistant" if index % 2 else "user", "content": text} for index, text in enumerate(texts)]


def ends_in(number: int) -> Callable[[str], bool]:
    """Return a check whether the last number of an answer is ``number``."""
    return lambda response: re.findall(r"-?\d+", response)[-1:] == [str(number)]


def contains(word: str) -> Callable[[str], bool]:
    """Return a check whether an answer contains a word, in any case."""
    return lambda response: re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) is not None


def arithmetic_questions(setting: str = "") -> list[Question]:
    """Return the test problems: the first ones of the test split."""
    return [
        Question(problem.id, problem.messages, partial(_is_right, problem))
        for problem in with_examples(setting, arithmetic.take(0, "test", TEST))
    ]


def with_examples(setting: str, problems: list[Problem]) -> list[Problem]:
    """Return the problems with the worked examples of a setting."""
    if setting != WORDY:
        return problems
    return [problem.model_copy(update={"prompt": [*WORDY_EXAMPLES, problem.messages[-1]]}) for problem in problems]


def max_new_tokens(setting: str) -> int:
    """Return the most tokens of an answer in a setting."""
    return 112 if setting == WORDY else load_task("arithmetic").max_new_tokens


WORDY_EXAMPLES = turns(
    "6 * 8 + 15",
    "The first step is to multiply the two numbers in front: 6 * 8 = 48.\n"
    "The second step is to add what is left over to that: 48 + 15 = 63.\n"
    "Both steps are done, so the result of the whole sum is \\boxed{63}.",
    "12 + 30 - 7",
    "The first step is to add the two numbers in front: 12 + 30 = 42.\n"
    "The second step is to subtract what is left over from that: 42 - 7 = 35.\n"
    "Both steps are done, so the result of the whole sum is \\boxed{35}.",
)


def _is_right(problem: Problem, response: str) -> bool:
    return grade(response, problem.answer or "").verdict == "right"


CAPITALS = (
    "France Paris;Japan Tokyo;Italy Rome;Spain Madrid;Germany Berlin;Greece Athens;Egypt Cairo;Cuba Havana;Peru Lima;"
    "Chile Santiago;Kenya Nairobi;Norway Oslo;Sweden Stockholm;Finland Helsinki;Denmark Copenhagen;Poland Warsaw;"
    "Austria Vienna;Hungary Budapest;Portugal Lisbon;Ireland Dublin;Russia Moscow;China Beijing;Thailand Bangkok;"
    "Vietnam Hanoi;Iran Tehran;Iraq Baghdad;Turkey Ankara;Canada Ottawa;Australia Canberra;Belgium Brussels;"
    "Bulgaria Sofia;Romania Bucharest;Mongolia Ulaanbaatar;Jamaica Kingston;Venezuela Caracas;Ecuador Quito;"
    "Uruguay Montevideo;Ghana Accra;Nepal Kathmandu;Lebanon Beirut"
)
PAST = (
    "go went;see saw;take took;give gave;write wrote;eat ate;run ran;sing sang;find found;keep kept;buy bought;"
    "think thought;teach taught;catch caught;bring brought;know knew;grow grew;throw threw;break broke;speak spoke;"
    "choose chose;drive drove;ride rode;rise rose;fall fell;feel felt;leave left;lose lost;make made;meet met;pay paid;"
    "say said;sell sold;send sent;sit sat;sleep slept;stand stood;swim swam;tell told;win won"
)
PLURALS = (
    "cat cats;dog dogs;book books;tree trees;box boxes;bus buses;baby babies;city cities;leaf leaves;knife knives;"
    "child children;man men;woman women;foot feet;tooth teeth;mouse mice;goose geese;house houses;car cars;"
    "watch watches;dish dishes;fox foxes;lady ladies;story stories;wolf wolves;half halves;hero heroes;"
    "potato potatoes;tomato tomatoes;church churches;bench benches;key keys;toy toys;day days;boy boys;apple apples;"
    "friend friends;game games;hand hands;idea ideas"
)
NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Frank", "Grace", "Henry", "Irene", "Jack"]
NOUNS = ["apple", "river", "stone", "cloud", "table", "horse", "paper", "window", "garden", "music", "silver", "orange"]


def families() -> dict[str, list[Question]]:
    """Return the untrained families. The starting policy answers some questions of each family, but not all."""
    generator = random.Random("families")

    def one_step() -> Drawn:
        a, b = generator.randint(2, 60), generator.randint(2, 39)
        examples = ("12 + 30", "12 + 30 = 42\n\\boxed{42}", "25 + 8", "25 + 8 = 33\n\\boxed{33}")
        return f"{a}+{b}", turns(*examples, f"{a} + {b}"), ends_in(a + b)

    def in_words() -> Drawn:
        a, b, c = generator.randint(2, 9), generator.randint(2, 9), generator.randint(2, 30)
        examples = (
            "Take 6, multiply it by 8 and add 15.", "6 * 8 = 48\n48 + 15 = 63\n\\boxed{63}",
            "Take 12, add 30 and subtract 7.", "12 + 30 = 42\n42 - 7 = 35\n\\boxed{35}",
        )  # fmt: skip
        return f"{a}*{b}+{c}", turns(*examples, f"Take {a}, multiply it by {b} and add {c}."), ends_in(a * b + c)

    def largest() -> Drawn:
        a, b, c = generator.sample(range(10, 999), 3)
        examples = ("Which is the largest of 48, 84 and 12?", "84", "Which is the largest of 71, 17 and 36?", "71")
        return f"{a}-{b}-{c}", turns(*examples, f"Which is the largest of {a}, {b} and {c}?"), ends_in(max(a, b, c))

    def lookup() -> Drawn:
        names, ages, index = generator.sample(NAMES, 3), generator.sample(range(11, 90), 3), generator.randrange(3)
        facts = ", ".join(f"{name} is {age}" for name, age in zip(names, ages, strict=True))
        examples = (
            "Olga is 41, Paul is 23, Rosa is 65. How old is Paul?", "23",
            "Tom is 18, Uma is 77, Vera is 52. How old is Vera?", "52",
        )  # fmt: skip
        return f"{facts}-{index}", turns(*examples, f"{facts}. How old is {names[index]}?"), ends_in(ages[index])

    def reverse() -> Drawn:
        words = generator.sample(NOUNS, 3)
        back = ", ".join(words[::-1])
        examples = ("Write in reverse order: red, green, blue", "blue, green, red",
                 "Write in reverse order: one, two, three", "three, two, one")  # fmt: skip
        question = f"Write in reverse order: {', '.join(words)}"
        return back, turns(*examples, question), lambda response: response.strip() == back

    def from_pairs(pairs: str, question: str, *examples: str) -> list[Drawn]:
        split = [pair.split(" ") for pair in pairs.split(";")]
        return [(key, turns(*examples, question.format(key)), contains(answer)) for key, answer in split]

    drawn = {
        "one-step": _distinct(one_step),
        "in-words": _distinct(in_words),
        "largest": _distinct(largest),
        "lookup": _distinct(lookup),
        "reverse": _distinct(reverse),
        "capitals": from_pairs(CAPITALS, "What is the capital of {}?"),
        "past": from_pairs(
            PAST, "Past tense of '{}'?", "Past tense of 'walk'?", "walked", "Past tense of 'come'?", "came"
        ),
        "plural": from_pairs(PLURALS, "Plural of '{}'?", "Plural of 'bird'?", "birds", "Plural of 'glass'?", "glasses"),
    }
    return {
        name: [Question(f"{name}:{id}", messages, is_right) for id, messages, is_right in drawn[name]]
        for name in NEAR + FAR
    }


def _distinct(draw: Callable[[], Drawn]) -> list[Drawn]:
    """Draw questions until there are ``FAMILY_SIZE`` distinct ones."""
    distinct: dict[str, Drawn] = {}
    while len(distinct) < FAMILY_SIZE:
        question = draw()
        distinct.setdefault(question[0], question)
    return list(distinct.values())
