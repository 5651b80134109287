"""Two reference answers of one problem: two notations of one value, or a conflict, because one of them is wrong."""

from __future__ import annotations

from spotcli.grading.kinds import grader_of

CONFLICTING = "conflicting references"
"""The reason for which a problem with different reference answers, or an answer to it, is left out."""

COMPARED = ("math", "choice", "coordinates")
"""Graders that compare two reference answers; another one's reference is not an answer."""

SHOWN = 60
"""Characters of a reference answer in a message."""


def are_equal(text: str, other: str, grader: str) -> bool:
    """Whether a grader accepts one of two reference answers as an answer to the other: ``1/2`` and ``0.5``."""
    grade = grader_of(grader)
    return text.strip() == other.strip() or any(
        grade(response, reference).verdict == "right"
        for answer, reference in ((text, other), (other, text))
        for response in (f"\\boxed{{{answer}}}", answer)
    )
