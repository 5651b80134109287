"""Graded answers as fields of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spotcli.answering.journal import KeptAnswer
from spotcli.grading.answers import Completion, grade_answers, graded_fields
from spotcli.policies import Answer, Sampling, limit_or_none
from spotcli.records import Message, Problem


@dataclass(frozen=True)
class RowSettings:
    """What all rows of a run have in common."""

    parameters: dict[str, Any]
    """Model, engine and sampling parameters, written to each row."""
    keeps_tokens: bool
    """Write the generated token ids."""

    @classmethod
    def of(cls, model: str | None, engine: str, sampling: Sampling, *, keeps_tokens: bool) -> RowSettings:
        parameters = {
            "model": model,
            "engine": engine,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
        }
        return cls(parameters, keeps_tokens)


def graded_answers(answers: Sequence[KeptAnswer], grader: str, settings: RowSettings) -> list[dict[str, Any]]:
    """Grade answers, as the fields of their rows; truncated and unreferenced ones are undecided.

    Args:
        answers: the answers.
        grader: grades the problems that name none.
        settings: what the rows have in common.

    Raises:
        UserError: a problem names an unknown grader.
    """
    completions = [Completion(kept.problem, kept.answer.response, kept.answer.finish_reason) for kept in answers]
    return [
        {
            **kept.problem.model_dump(exclude_unset=True),
            **grader_field(kept.problem, grader),
            "trial": kept.answer.request.trial,
            **graded_fields(completion, grade),
            **_answer_fields(kept.answer, settings),
        }
        for kept, completion, grade in zip(answers, completions, grade_answers(completions, grader), strict=True)
    ]


def grader_field(problem: Problem, default: str) -> dict[str, str]:
    """The field that names the grader of a row; none for ``math``."""
    grader = problem.grader or default
    return {} if grader == "math" else {"grader": grader}


def _answer_fields(answer: Answer, settings: RowSettings) -> dict[str, Any]:
    effective: dict[str, Any] = {"max_new_tokens": limit_or_none(answer.max_new_tokens), "seed": answer.request.seed}
    effective |= answer.sent or {}
    if answer.cost is not None:
        effective["cost"] = answer.cost
    return {
        **({"reasoning": answer.reasoning} if answer.reasoning else {}),
        "tokens": answer.tokens,
        "sampling": settings.parameters | effective,
        **({"response_ids": answer.token_ids} if settings.keeps_tokens else {}),
    }


def with_instructions(problem: Problem, system: str | None, instruction: str | None) -> Problem:
    """The problem with a system prompt, if it has none, and with an instruction after its last message."""
    if not system and not instruction:
        return problem
    messages: list[Message] = [{**message} for message in problem.messages]
    if instruction:
        messages[-1]["content"] = f"{messages[-1]['content']}\n\n{instruction}"
    if system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return problem.model_copy(update={"prompt": messages})
