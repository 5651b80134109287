"""The dataset format: one JSON object per line; each stage adds fields and removes none.

    Problem --sample--> Sample --rectify--> Pair --train--> checkpoint --eval--> Score

Unknown fields are kept and passed on. ``prompt``, ``chosen`` and ``rejected`` have the names that other preference
trainers read, so a file of pairs can be used there without conversion.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal, NotRequired, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
    with_config,
)
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from spotcli.reviews import Review

CHAT = "spot_chat"
"""Field of a pair in training: the messages of its prompt as the file has them, where a content is null."""

Verdict = Literal["right", "wrong", "undecided"]
FinishReason = Literal["stop", "length"]


@with_config(ConfigDict(extra="allow", strict=True))
class Message(TypedDict):
    """One message of a chat; other fields, such as ``tool_calls``, are kept for the chat template."""

    role: str
    content: str
    name: NotRequired[str]


T = TypeVar("T", bound="str | list[Message]")


def _not_empty(value: T) -> T:
    if not value:
        raise ValueError("expected a non-empty value")
    return value


def _text_contents(prompt: Any) -> Any:
    """Messages whose content is text: parts of text are joined, and null beside ``tool_calls`` becomes empty.

    Raises:
        ValueError: a part of a content is not text.
    """
    if not isinstance(prompt, list):
        return prompt
    return [text_content(message) if isinstance(message, dict) else message for message in prompt]


def text_content(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose content is text: parts of text are joined, and null beside ``tool_calls`` becomes empty.

    Raises:
        ValueError: a part of the content is not text.
    """
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return message | {"content": ""}
    if not isinstance(content, list):
        return message
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise ValueError(f"expected text, got a part of type {kind!r}; only text can be used")
    return message | {"content": "".join(part["text"] for part in content)}


NonEmpty = Annotated[str, AfterValidator(_not_empty)]
"""A string that is not empty. Pydantic's own constraint would refuse lone surrogates, which a reply can contain."""

Prompt = Annotated[str | list[Message], BeforeValidator(_text_contents), AfterValidator(_not_empty)]


def prompt_digest(prompt: str | list[Message]) -> str:
    """Return the default ``id`` of a problem: the first 16 hex digits of the SHA-256 of its prompt."""
    text = json.dumps(prompt, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def plain_prompt(prompt: str | list[Message]) -> str | list[Message]:
    """A chat of one user message as a string, so that both forms of a prompt are the same one."""
    if isinstance(prompt, list) and len(prompt) == 1 and prompt[0].keys() == {"role", "content"}:
        return prompt[0]["content"] if prompt[0]["role"] == "user" else prompt
    return prompt


def key_hash(*parts: Any) -> int:
    """Return a 64-bit hash of a row's key; the probability of a collision among a million keys is 3e-8."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest())


PLACEHOLDERS = frozenset(
    {"nan", "none", "null", "nil", "nat", "n/a", "#n/a", "n.a.", "<na>", "-", "--", "\u2013", "\u2014", '""', "''"}
)
"""What spreadsheets and data frames write for a missing value, in lower case."""


def is_placeholder(text: str) -> bool:
    """Whether a reference answer stands for a missing value, or for a number too large to be stored."""
    text = text.strip()
    if not text or text.casefold() in PLACEHOLDERS:
        return True
    try:
        # ``inf`` and ``nan`` are how programs write such numbers; an infinite answer is written \\infty.
        return not math.isfinite(float(text)) and text.casefold().lstrip("+-") != "infinity"
    except ValueError:
        return False


def json_text(value: Any, **options: Any) -> str:
    """Return a value as JSON; numbers that JSON does not have (NaN and infinity) become null.

    Args:
        value: the value.
        options: further arguments of ``json.dumps``.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:
        without = json.loads(json.dumps(value, **options), parse_constant=lambda _: None)
        return json.dumps(without, ensure_ascii=False, **options)


class Row(BaseModel):
    """Base of all records: unknown fields are kept, declared fields are checked without coercion."""

    model_config = ConfigDict(extra="allow", strict=True, populate_by_name=True)

    aliases: ClassVar[dict[str, str]] = {}
    """Names that other tools and published files use for these fields; read, never written."""
    cures: ClassVar[dict[str, str]] = {}
    """Cures for missing fields, where the default cure is not enough."""
    kind: ClassVar[str] = "rows"
    """What a file of these records contains, in the plural."""

    def json_line(self) -> str:
        """Return the row as one line of JSON without its line end; fields that were never set are omitted."""
        # Pydantic's JSON writer refuses lone surrogates.
        return json_text(self.model_dump(exclude_unset=True), default=to_jsonable_python)


_TOLERANCE = re.compile(r"(?:\d{1,9}(?:\.\d{0,15})?|\.\d{1,15})(?:[eE][+-]?\d{1,2})?")


class Problem(Row):
    """A prompt and its reference answer."""

    kind: ClassVar[str] = "problems"
    aliases: ClassVar[dict[str, str]] = {
        "question": "prompt",
        "problem": "prompt",
        "ground_truth": "answer",
        "solution": "answer",
    }

    id: NonEmpty = ""
    """Stable key, unique in a file (with ``trial``); by default a digest of the prompt."""
    prompt: Prompt
    """A string, or chat messages."""
    answer: str | None = None
    """The reference answer, or null."""
    accepted_answers: list[NonEmpty] | None = None
    """All reference answers, if there are several: an answer is right if it matches one; ``answer`` is the first."""
    source: str | None = None
    """Dataset and row that the problem was read from."""
    grader: str | None = None
    """How to grade answers: ``math`` (default), ``choice``, ``coordinates`` or ``instructions``."""

    @field_validator("answer", mode="before")
    @classmethod
    def _read_infinity(cls, value: Any) -> Any:
        # 1e400 is valid JSON for a number that cannot be stored.
        return None if isinstance(value, float) and not math.isfinite(value) else value

    @model_validator(mode="after")
    def _fill_id(self) -> Self:
        if not self.id:
            self.id = prompt_digest(self.prompt)
        return self

    @property
    def reference(self) -> str | None:
        """The reference answer; None if it is missing, empty, or a placeholder for a missing value."""
        text = (self.answer or "").strip()
        return None if not text or (self.grader in (None, "math") and is_placeholder(text)) else self.answer

    @property
    def tolerance(self) -> Fraction | None:
        """The largest difference from a number as reference answer that is right; None if the problem states none.

        It is the column ``error`` of OlympiadBench, such as ``1e-1``; other sets have other meanings of this name.
        """
        fields = self.model_extra or {}
        text = str(fields.get("error"))
        if fields.get("answer_type") != "Numerical" or not _TOLERANCE.fullmatch(text):
            return None
        return Fraction(text) or None

    @property
    def references(self) -> list[str]:
        """All reference answers, of which one has to be matched; an empty text if there is none."""
        return self.accepted_answers or [self.answer or ""]

    @property
    def messages(self) -> list[Message]:
        """The prompt as chat messages; a plain string becomes one user message."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return self.prompt

    @property
    def tools(self) -> list[Any] | None:
        """The JSON schemas of the tools that the prompt offers; None if it offers none.

        They are the field ``tools``: a list, or a list as JSON text, as in Parquet files.
        """
        tools = (self.model_extra or {}).get("tools")
        if isinstance(tools, str):
            try:
                tools = json.loads(tools)
            except (ValueError, RecursionError):
                return None
        return tools if isinstance(tools, list) and tools else None


class UngradedSample(Problem):
    """One answer of the policy, without a verdict."""

    kind: ClassVar[str] = "answers"
    aliases: ClassVar[dict[str, str]] = Problem.aliases | {"model_output": "response", "original_answer": "response"}

    trial: Annotated[int, Field(ge=0)] = 0
    """Index of the answer among those to the same problem, from 0."""
    response: str
    """The answer as text without special tokens."""
    finish_reason: FinishReason = "stop"
    """``stop``: the policy ended its turn; ``length``: the answer was truncated at the token limit."""

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.trial


class Sample(UngradedSample):
    """One graded answer of the policy."""

    kind: ClassVar[str] = "samples"
    verdict: Verdict
    """Verdict on the response. A truncated answer is undecided, never wrong."""
    extracted: str | None = None
    """The final answer that was graded; null if none was found."""
    reason: str | None = None
    """Reason of an undecided verdict."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Model and sampling parameters that were used."""


class Pair(Problem):
    """A wrong answer and its correction; without ``rejected``, a right answer to train on."""

    kind: ClassVar[str] = "pairs"
    aliases: ClassVar[dict[str, str]] = Problem.aliases | {
        "model_output": "rejected",
        "original_answer": "rejected",
        "gemini_corrected_answer": "chosen",
    }

    trial: Annotated[int, Field(ge=0)] = 0
    rejected: NonEmpty | None = None
    """y-: the policy's answer. Null if ``chosen`` is the policy's own right answer."""
    chosen: NonEmpty
    """y+: the corrected answer."""
    change_ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """1 - |LCS(y-, y+)| / |y+|, in tokens of the policy."""
    verdict: Verdict | None = None
    """Verdict on y+."""
    oracle: dict[str, Any] = Field(default_factory=dict)
    """Name, prompt version and cost of the correction."""
    review: Review | None = None
    """Decision of a reviewer; rejected pairs are not trained on."""

    @property
    def key(self) -> tuple[str, int]:
        return self.id, self.trial

    @property
    def is_rejected(self) -> bool:
        """Whether a person rejected the pair; training leaves it out."""
        return self.review == "reject"

    @property
    def original(self) -> str:
        """The policy's answer: y-, or y+ if nothing was corrected."""
        return self.chosen if self.rejected is None else self.rejected


EVALUATION = "eval"
"""The ``split`` of rows that only evaluate a model."""


class Score(Problem):
    """One graded answer of an evaluated model to a problem of a task."""

    kind: ClassVar[str] = "scores"
    split: Literal["eval"] = "eval"
    """Marks the row as part of an evaluation; absent in files of earlier versions."""

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


def kind_of(row: Mapping[str, Any]) -> str:
    """Return what a file with this row contains, by the fields of the row: ``Row.kind`` of its record."""
    fields = {name for kind in (Pair, UngradedSample) for alias, name in kind.aliases.items() if alias in row} | {*row}
    if row.get("split") == EVALUATION or {"task", "verdict", "response"} <= fields:
        return Score.kind
    if "chosen" in fields or "rejected" in row:
        return Pair.kind
    if "response" in fields:
        return Sample.kind if "verdict" in fields else UngradedSample.kind
    return Problem.kind if "prompt" in fields else Row.kind


def is_rectified(row: Mapping[str, Any]) -> bool:
    """Whether ``spot rectify`` wrote the row; a pair keeps every field of its sample."""
    original = row.get("chosen") if row.get("rejected") is None else row["rejected"]
    return "chosen" in row and original == row.get("response")
