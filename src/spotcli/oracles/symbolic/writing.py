"""Writing the true numbers and signs in the style of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from spotcli.oracles.symbolic.declined import CannotRepair
from spotcli.oracles.symbolic.expressions import WrittenExpression
from spotcli.oracles.symbolic.reading import WorkedAnswer
from spotcli.oracles.symbolic.state import Change
from spotcli.oracles.symbolic.tokens import OPERATORS, WrittenNumber

MAX_DECIMALS = 12


@dataclass(frozen=True)
class Replacement:
    """``response[start:end]``, which is ``old``, becomes ``new``."""

    start: int
    end: int
    old: str
    new: str


@dataclass(frozen=True)
class Style:
    """How an answer writes its numbers and signs."""

    text: str
    fractions: bool
    """Whether fractions occur; otherwise values that are not integers become decimals."""
    padded: bool
    """Whether decimals keep their zeros at the end."""
    comma: str
    """The separator of thousands."""
    minus: str
    operators: dict[str, str]
    """The way each operator is written."""

    @classmethod
    def of(cls, problem: WrittenExpression, answer: WorkedAnswer) -> Style:
        """The style of an answer; the problem shows what the answer does not."""
        numbers = [*answer.numbers, *problem.numbers]
        operators: dict[str, str] = {}
        for token in (*answer.operators, *problem.operators):
            operators.setdefault(OPERATORS[token.text], token.text)
        return cls(
            text=answer.text,
            fractions=any(number.style in ("fraction", "tex") for number in numbers),
            padded=any(number.padded for number in numbers),
            comma=next((number.comma for number in numbers if number.comma), ""),
            minus="−" if "−" in answer.text else "-",
            operators=operators,
        )

    def replacements(self, changes: Sequence[Change]) -> tuple[Replacement, ...]:
        """The changes as replacements of text, in the order of the text.

        Raises:
            CannotRepair: a value has no short decimal form.
        """
        replacements = set()
        for change in changes:
            token, truth = change.token, change.truth
            if isinstance(truth, str):
                new = self.operators.get(truth, truth)
            else:
                assert isinstance(token, WrittenNumber)
                new = self.write(truth, token)
                if truth < 0 and change.after_operator and not token.minus and self.text[token.start - 1] != "(":
                    new = f"({new})"
            replacements.add(Replacement(token.start, token.end, self.text[token.start : token.end], new))
        return tuple(sorted(replacements, key=lambda replacement: replacement.start))

    def write(self, value: Fraction, like: WrittenNumber) -> str:
        """Write a value in the style of the number that it replaces."""
        sign = (like.minus or self.minus) if value < 0 else ""
        size = abs(value)
        if size.denominator > 1 and (like.style in ("fraction", "tex") or (like.style == "integer" and self.fractions)):
            over, under = size.numerator, size.denominator
            return f"{sign}\\frac{{{over}}}{{{under}}}" if like.style == "tex" else f"{sign}{over}/{under}"
        places = like.places if like.style == "decimal" and self.padded else 0
        while (size * 10**places).denominator > 1:
            places += 1
            if places > MAX_DECIMALS:
                raise CannotRepair("not exact", f"{value} has no decimal form with at most {MAX_DECIMALS} digits")
        digits = str(int(size * 10**places)).rjust(places + 1, "0")
        whole, decimals = (digits[:-places], digits[-places:]) if places else (digits, "")
        comma = like.comma or (self.comma if abs(like.value) < 1000 else "")
        if comma and len(whole) > 3:
            whole = f"{int(whole):,}".replace(",", comma)
        return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
