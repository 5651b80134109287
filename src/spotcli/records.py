"""The dataset format: one JSON object a line, and a row only ever gains fields on its way.

    Problem --sample--> Sample --rectify--> Pair --train--> checkpoint --eval--> Score

Fields that are not listed here are kept and passed on. ``prompt``, ``chosen`` and ``rejected`` have the names that
other preference trainers read, so a file of pairs trains there as it is.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

Verdict = Literal["right", "wrong", "undecided"]
FinishReason = Literal["stop", "length"]


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    content: str
    name: NotRequired[str]


T = TypeVar("T", bound="str | list[Message]")


def _not_empty(value: T) -> T:
    if not value:
        raise ValueError("it is empty")
    return value


# A constraint on the string itself would refuse lone surrogates, which an oracle's reply may hold.
NonEmpty = Annotated[str, AfterValidator(_not_empty)]
Prompt = Annotated[str | list[Message], AfterValidator(_not_empty)]


def prompt_digest(prompt: str | list[Message]) -> str:
    """The ``id`` of a problem that has none: 16 hex digits of the SHA-256 of its prompt."""
    text = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def key_hash(*parts: Any) -> int:
    """64 bits of a row's key, for the millions; that two of a million keys share them has a chance of 3e-8."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest())


class Row(BaseModel):
    """What every record shares: unknown fields are kept, declared ones are checked without coercion."""

    model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True)

    # Names that other tools and published files use for our fields; read, never written.
    aliases: ClassVar[dict[str, str]] = {}

    # What to do where a field is missing, for fields of which there is more to say than their name.
    cures: ClassVar[dict[str, str]] = {}

    def json_line(self) -> str:
        """The row as one line of JSON, without the line's end; fields that were never set are left out."""
        # Pydantic's own JSON refuses lone surrogates.
        return json.dumps(self.model_dump(exclude_unset=True), ensure_ascii=False, default=to_jsonable_python)


class Problem(Row):
    """Something to ask, and what a right answer looks like."""

    aliases: ClassVar[dict[str, str]] = {
        "question": "prompt",
        "problem": "prompt",
        "ground_truth": "answer",
        "solution": "answer",
    }

    id: NonEmpty = ""
    """Stable key; a digest of the prompt when absent. Unique in a file (with ``trial``)."""
    prompt: Prompt
    """A string, or chat messages."""
    answer: str | None = None
    """The reference answer, or null where there is none."""
    source: str | None = None
    """The data set, and the row of it."""
    grader: str | None = None
    """How answers are graded: ``math`` where absent, ``choice``, ``coordinates`` or ``instructions``."""

    @model_validator(mode="after")
    def _fill_id(self) -> Self:
        if not self.id:
            self.id = prompt_digest(self.prompt)
        return self

    @property
    def messages(self) -> list[Message]:
        """The prompt as chat messages; a plain string is one user turn."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return self.prompt


class Sample(Problem):
    """One answer of the policy, graded."""

    aliases: ClassVar[dict[str, str]] = Problem.aliases | {"model_output": "response", "original_answer": "response"}

    trial: Annotated[int, Field(ge=0)] = 0
    """This is the k-th answer to the problem, from 0."""
    response: str
    """The answer as text, special tokens removed."""
    finish_reason: FinishReason = "stop"
    """``stop``: the policy ended its turn; ``length``: it was cut at the token limit."""
    verdict: Verdict
    """Of the response. An answer that was cut is undecided, never wrong."""
    extracted: str | None = None
    """What was graded; null where no answer was found."""
    reason: str | None = None
    """Why the verdict is undecided."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Model and effective sampling parameters."""

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.trial


class Pair(Problem):
    """A wrong answer and its smallest correction; or, without ``rejected``, a right answer to learn from."""

    aliases: ClassVar[dict[str, str]] = Problem.aliases | {
        "model_output": "rejected",
        "original_answer": "rejected",
        "gemini_corrected_answer": "chosen",
    }

    trial: Annotated[int, Field(ge=0)] = 0
    rejected: NonEmpty | None = None
    """y-: what the policy answered. Absent where ``chosen`` is the policy's own right answer."""
    chosen: NonEmpty
    """y+: the corrected answer."""
    change_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """1 - |LCS(y-, y+)| / |y+| in the policy's tokens."""
    verdict: Verdict | None = None
    """Of y+."""
    oracle: dict[str, Any] = Field(default_factory=dict)
    """Who corrected it, with which prompt, at what cost."""
    review: Literal["accept", "reject", "edited"] | None = None
    """What a human said of the pair; rejected pairs are not trained on."""

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.trial

    @property
    def original(self) -> str:
        """What the policy answered: y-, or y+ itself where nothing was corrected."""
        return self.chosen if self.rejected is None else self.rejected


class Contrast(Pair):
    """A pair with both sides, which the objectives need that push y- down or look at it."""

    cures: ClassVar[dict[str, str]] = {
        "rejected": "train.objective sft or dft learns from `chosen` alone; this one needs rows with both answers"
    }

    rejected: NonEmpty
    """y-: what the policy answered."""


class Score(Problem):
    """One graded answer of an evaluated model to one problem of a task."""

    task: str
    trial: Annotated[int, Field(ge=0)] = 0
    response: str
    finish_reason: FinishReason
    verdict: Verdict
    extracted: str | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[str, str, int]:
        return self.task, self.id, self.trial
