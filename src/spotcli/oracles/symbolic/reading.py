"""Reading the problem, its reference answer, and the worked answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from spotcli.oracles.symbolic.declined import CannotRepair
from spotcli.oracles.symbolic.expressions import ExpressionShape, WrittenExpression, parse_expression
from spotcli.oracles.symbolic.tokens import Token, WrittenNumber, lone_number, runs, split_at_equals

MAX_CLAIMS = 40

_INSTRUCTION_WORDS = re.compile(
    r"""what|what's|is|are|calculate|compute|evaluate|solve|find|simplify|work|working|out|the|value|results?|answer|of|for
    |please|step|by|steps|step-by-step|and|show|your|in|a|an|line|box|boxed|final|put|give|write|with|expression
    |following|this|one|at|time|each|on|its|own|to|question|problem|q|how|much|then|inside|x""",
    re.VERBOSE | re.IGNORECASE,
)
"""Words that may occur next to the expression if no reference answer confirms that the problem asks for its value."""


def read_problem(text: str, reference: str | None, literal: bool) -> WrittenExpression:
    """The only expression of a problem.

    ``literal``: read ``1/2`` as one number.

    Raises:
        CannotRepair: the problem has no expression or several, or may ask for something else than its value.
    """
    # `Put the answer in \boxed{}` is an instruction.
    text = re.sub(r"\\boxed\s?\{[^{}]{0,40}\}", "box", text)
    expressions: dict[tuple[ExpressionShape, tuple[Fraction, ...]], WrittenExpression] = {}
    has_other_numbers = False
    try:
        for run in runs(text, literal):
            tokens = run[:-1] if run[-1].kind == "equals" else run
            if any(token.kind == "operator" for token in tokens):
                expression = parse_expression(tokens)
                expressions[expression.shape, tuple(number.value for number in expression.numbers)] = expression
            elif any(token.kind == "number" for token in tokens):
                has_other_numbers = True
    except CannotRepair as failure:
        if failure.reason == "unreadable equation":
            raise CannotRepair("no expression", failure.detail) from None
        raise
    if not expressions:
        raise CannotRepair("no expression")
    if len(expressions) > 1:
        raise CannotRepair("several expressions")
    if reference is None:
        words = re.findall(r"[^\W\d_](?:[^\W\d_]|['’-])*", re.sub(r"\\[A-Za-z]+", " ", text))
        if has_other_numbers or not all(_INSTRUCTION_WORDS.fullmatch(word) for word in words):
            raise CannotRepair(
                "no expression", "the problem may ask for more than its value, and there is no reference answer"
            )
    return next(iter(expressions.values()))


def read_reference(text: str) -> Fraction:
    """The value of a reference answer, with or without a box.

    Raises:
        CannotRepair: the reference is not a number.
    """
    bare = text.strip().removeprefix("\\boxed{") if len(text) < 200 else ""
    number = lone_number(bare, 0, len(bare) - (bare != text.strip() and bare.endswith("}")))
    if number is None:
        raise CannotRepair("unreadable reference")
    return number.value


@dataclass(frozen=True)
class EquationChain:
    """``e = e = ... = e``; a single expression claims nothing, but must be an expression of the state."""

    expressions: tuple[WrittenExpression, ...]
    step: int
    """The number of this equation in the answer, from 1."""


Claim = EquationChain | WrittenNumber
"""A part of the answer: an equation, or a number on its own."""


@dataclass(frozen=True)
class WorkedAnswer:
    text: str
    claims: tuple[Claim, ...]
    numbers: tuple[WrittenNumber, ...]
    operators: tuple[Token, ...]


@dataclass
class _ClaimReader:
    text: str
    claims: list[Claim] = field(default_factory=list)
    numbers: list[WrittenNumber] = field(default_factory=list)
    operators: list[Token] = field(default_factory=list)
    steps: int = 0
    last_line: int = -2

    def add(self, run: list[Token]) -> None:
        """Read a run that contains a number."""
        continues = False
        if run[0].kind == "equals":
            continues = self._continues(run[0])
            run = run[1:]
        expressions = tuple(parse_expression(part) for part in split_at_equals(run))
        self.numbers += [number for expression in expressions for number in expression.numbers]
        self.operators += [token for expression in expressions for token in expression.operators]
        before = self.claims[-1] if self.claims else None
        if continues and isinstance(before, EquationChain):
            self.steps += len(before.expressions) == 1
            self.claims[-1] = EquationChain(before.expressions + expressions, self.steps)
        elif len(expressions) == 1 and not expressions[0].operators:
            self.claims.append(expressions[0].numbers[0])
        else:
            if not expressions[0].operators:
                raise CannotRepair("unreadable equation", "nothing to compute before the equals sign")
            self.steps += len(expressions) > 1
            self.claims.append(EquationChain(expressions, self.steps))
        self.last_line = run[-1].line
        if len(self.claims) > MAX_CLAIMS:
            raise CannotRepair("too complex")

    def _continues(self, equals: Token) -> bool:
        """Whether an equals sign continues the line above: it does at the start of a line, but not after words, as in
        ``Total = 36``."""
        before = self.text[self.text.rfind("\n", 0, equals.start) + 1 : equals.start]
        return not before.strip(" \t$&\\") and equals.line == self.last_line + 1


def read_answer(text: str, literal: bool) -> WorkedAnswer:
    """The claims of a worked answer.

    Raises:
        CannotRepair: the answer cannot be read, or has no equation or no boxed number.
    """
    reader = _ClaimReader(text)
    for run in runs(text, literal):
        if any(token.kind == "number" for token in run):
            reader.add(run)
        elif any(token.kind == "equals" for token in run):
            raise CannotRepair("unreadable equation", "an equals sign without numbers")
    if not any(isinstance(claim, EquationChain) and len(claim.expressions) > 1 for claim in reader.claims):
        raise CannotRepair("no equation")
    if not any(number.boxed for number in reader.numbers):
        raise CannotRepair("no boxed answer")
    return WorkedAnswer(text, tuple(reader.claims), tuple(reader.numbers), tuple(reader.operators))
