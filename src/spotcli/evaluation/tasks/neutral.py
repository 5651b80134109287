"""Everyday requests that no recipe trains on, to measure drift: a policy's answers to them should not change.

They ask for prose, code, lists, translation and advice, and contain no calculation. Drift is measured on the base
model's answers.
"""

from __future__ import annotations

from spotcli.records import Problem

MAX_NEW_TOKENS = 64

PROMPTS = (
    "Write a short note to a neighbour who kindly watered my plants while I was away.",
    "What is the difference between a comet and an asteroid?",
    "Suggest three titles for a novel about a lighthouse keeper.",
    "Explain to a ten-year-old why the sky is blue.",
    "Write a Python function that returns the longest word in a sentence.",
    "List five things to pack for a weekend of hiking in the rain.",
    "Translate into French: The library opens at nine and closes at six.",
    "Give me a simple recipe for tomato soup.",
    "Summarise in one sentence what photosynthesis does.",
    "How can I politely decline an invitation to a wedding?",
    "Describe a busy railway station in four sentences.",
    "What does the command `git stash` do?",
    "Write a two-line poem about the first snow.",
    "Name some advantages and disadvantages of working from home.",
    "How do vaccines protect people?",
    "Rewrite this more formally: Hey, can you send me that file soon?",
    "Who wrote the play Hamlet, and what is it about?",
    "Give me a regular expression that matches an e-mail address, and explain it.",
    "What should I think about before I adopt a dog?",
    "Explain the idea of supply and demand with an example.",
    "Write a product description for a handmade wooden chair.",
    "What are the main parts of a plant cell?",
    "Plan a quiet day in a small town by the sea.",
    "How does a refrigerator keep food cold?",
    "Write the opening paragraph of a mystery story set in a bakery.",
    "Give three tips for sleeping better.",
    "What is the capital of Australia, and what is the city known for?",
    "Write an SQL query that lists customers without any order.",
    "Explain what an idiom is, and give two examples.",
    "How do I change a flat tyre on a bicycle?",
    "Compare a democracy with a monarchy in a short paragraph.",
    "Turn this into a question: The museum is closed on Mondays.",
)


def problems(limit: int | None = None) -> list[Problem]:
    """The requests as problems without reference answers."""
    return [
        Problem(id=f"neutral-{index}", prompt=prompt, source="builtin:neutral")
        for index, prompt in enumerate(PROMPTS[:limit])
    ]
