"""Provisional grader; being replaced."""
from __future__ import annotations
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

@dataclass(frozen=True)
class Grade:
    verdict: Literal["right", "wrong", "undecided"]
    extracted: str | None = None
    reason: str | None = None

def grade(response: str, reference: str) -> Grade:
    found = re.findall(r"\\boxed\{([^{}]*)\}", response)
    if not found:
        return Grade("undecided", None, "no answer found")
    try:
        same = Fraction(found[-1].strip()) == Fraction(reference.strip())
    except (ValueError, ZeroDivisionError):
        return Grade("undecided", found[-1], "unparsable")
    return Grade("right" if same else "wrong", found[-1])
