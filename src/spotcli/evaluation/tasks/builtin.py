"""The built-in tasks: the paper's nine, AIME 2026, and mental arithmetic.

    task                     problems  trials  group
    aime24, aime25                 30      16  in-domain
    amc23                          40      16  in-domain
    math500                       500       5  in-domain
    minerva                       272       5  in-domain
    olympiadbench                 675       5  in-domain
    gpqa (GPQA-Diamond)           198       5  OOD
    connect4                      500       5  OOD
    ifeval                        541       5  IFEval
    aime26                         30      16  other
    arithmetic                    400       1  in-domain

A published set is a declaration. Only GPQA, IFEval and Connect Four compute something, so they have a module each.
"""

from __future__ import annotations

import re
from functools import partial

from spotcli.evaluation.tasks import connect4, gpqa, ifeval
from spotcli.evaluation.tasks.published import PublishedSet, load_published
from spotcli.evaluation.tasks.task import Group, Task, TaskContext
from spotcli.problems import arithmetic
from spotcli.records import Problem

INSTRUCTION = (
    "Reason step by step. Write the last line of your response in exactly this form, with your answer in place of "
    "ANSWER:\nTherefore, the final answer is: $\\boxed{ANSWER}$."
)
"""Appended to mathematics problems: the form of the final answer in the paper's evaluation."""

ARITHMETIC_PROBLEMS = 400
"""Held-out problems of ``arithmetic``; ``eval.limit`` may ask for more."""

MATHEMATICS: tuple[tuple[PublishedSet, int, Group], ...] = (
    (PublishedSet("aime24", ("HuggingFaceH4/aime_2024", "math-ai/aime24"), 30), 16, "in-domain"),
    (
        PublishedSet("aime25", ("math-ai/aime25", "yentinglin/aime_2025", "MathArena/aime_2025"), 30),
        16,
        "in-domain",
    ),
    (PublishedSet("aime26", ("math-ai/aime26", "MathArena/aime_2026"), 30), 16, "other"),
    (PublishedSet("amc23", ("knoveleng/AMC-23", "math-ai/amc23"), 40), 16, "in-domain"),
    (PublishedSet("math500", ("HuggingFaceH4/MATH-500", "math-ai/math500"), 500), 5, "in-domain"),
    (
        PublishedSet("minerva", ("knoveleng/Minerva-Math", "math-ai/minervamath"), 272, files=("minerva_math",)),
        5,
        "in-domain",
    ),
    (
        PublishedSet("olympiadbench", ("knoveleng/OlympiadBench",), 675, files=("OE_TO_maths_en_COMP",)),
        5,
        "in-domain",
    ),
)
"""Set, trials and group of each mathematics task."""


def _arithmetic(context: TaskContext) -> list[Problem]:
    """The test split of two-step mental arithmetic."""
    return arithmetic.take(context.seed, "test", context.limit or ARITHMETIC_PROBLEMS)


BUILTIN = {
    task.name: task
    for task in (
        *(
            Task(
                published.task,
                partial(load_published, published),
                trials=trials,
                group=group,
                published_rows=published.rows,
                instruction=INSTRUCTION,
            )
            for published, trials, group in MATHEMATICS
        ),
        gpqa.TASK,
        connect4.TASK,
        ifeval.TASK,
        Task("arithmetic", _arithmetic, trials=1, max_new_tokens=48, group="in-domain"),
    )
}
"""The built-in tasks by name."""


def plain_name(name: str) -> str:
    """A task's name without case, ``-``, ``_`` and blanks: ``MATH-500`` is ``math500``."""
    return re.sub(r"[-_ ]", "", name.casefold())


ALIASES = {plain_name(name): name for name in BUILTIN} | {
    plain_name(alias): published.task
    for published in (*(row[0] for row in MATHEMATICS), gpqa.SET, connect4.SET, ifeval.SET)
    for alias in published.file_names
}
"""Plain name -> built-in task; the names of the sets on the hub are known too."""
