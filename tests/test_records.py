"""Records: required fields, checks without coercion, aliases, and lossless JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from spotcli.records import Message, Pair, Problem, Row, Sample, Score, prompt_digest

SAMPLE = {"prompt": "1 + 1", "response": "3", "verdict": "wrong"}
PAIR = {"prompt": "1 + 1", "rejected": "3", "chosen": "2"}
SCORE = {"prompt": "1 + 1", "task": "t", "response": "3", "finish_reason": "stop", "verdict": "wrong"}
SMALLEST: list[tuple[type[Row], dict[str, Any]]] = [
    (Problem, {"prompt": "1 + 1"}),
    (Sample, SAMPLE),
    (Pair, {"prompt": "1 + 1", "chosen": "2"}),
    (Score, SCORE),
]

TEXT = st.text(alphabet=st.characters(), max_size=40)  # with control characters, U+2028 and lone surrogates
NAME = st.text(max_size=20)  # reading a file replaces lone surrogates in field names
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("model", "row"), SMALLEST)
def test_the_smallest_row_is_valid_and_each_of_its_fields_is_required(model: type[Row], row: dict[str, Any]) -> None:
    model.model_validate(row)
    for field in row:
        with pytest.raises(
            ValidationError, match=f"^1 validation error for {model.__name__}\n{field}\n  Field required"
        ):
            model.model_validate({name: value for name, value in row.items() if name != field})


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (Problem, {"prompt": ""}),
        (Problem, {"prompt": []}),
        (Problem, {"prompt": 5}),
        (Problem, {"prompt": [{"role": "user"}]}),
        (Problem, {"prompt": [{"role": "user", "content": None}]}),
        (Problem, {"id": ""}),
        (Problem, {"id": 7}),
        (Problem, {"answer": 7}),
        (Sample, {"verdict": "correct"}),
        (Sample, {"finish_reason": "eos"}),
        (Sample, {"trial": -1}),
        (Sample, {"trial": True}),
        (Sample, {"trial": "0"}),
        (Sample, {"sampling": []}),
        (Pair, {"chosen": ""}),
        (Pair, {"rejected": ""}),
        (Pair, {"change_ratio": 1.01}),
        (Pair, {"review": "maybe"}),
    ],
)
def test_nothing_is_coerced(model: type[Row], change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(dict(SMALLEST)[model] | change)


def test_the_digest_is_the_sha256_of_the_prompt() -> None:
    # printf '"1 + 1"' | sha256sum
    assert prompt_digest("1 + 1") == "edebf083b382e52c"
    assert Problem(prompt="1 + 1").id == prompt_digest("1 + 1")
    assert Problem(prompt="1 + 1", id="own").id == "own"


def test_the_digest_is_independent_of_the_order_of_message_keys() -> None:
    role_first: list[Message] = [{"role": "user", "content": "1 + 1"}]
    content_first: list[Message] = [{"content": "1 + 1", "role": "user"}]
    assert prompt_digest(role_first) == prompt_digest(content_first) != prompt_digest("1 + 1")


@given(TEXT.filter(bool))
def test_every_prompt_has_a_digest(prompt: str) -> None:
    assert re.fullmatch("[0-9a-f]{16}", Problem(prompt=prompt).id)


def test_a_plain_prompt_is_one_user_message() -> None:
    assert Problem(prompt="1 + 1").messages == [{"role": "user", "content": "1 + 1"}]
    chat: list[Message] = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1 + 1"}]
    assert Problem(prompt=chat).messages == chat


def test_keys_of_records() -> None:
    assert Sample.model_validate(SAMPLE | {"id": "a", "trial": 2}).key == ("a", 2)
    assert Pair.model_validate(PAIR | {"id": "a", "trial": 2}).key == ("a", 2)
    assert Score.model_validate(SCORE | {"id": "a", "trial": 2}).key == ("t", "a", 2)


def test_fields_that_were_never_set_are_omitted() -> None:
    assert json.loads(Pair.model_validate(PAIR | {"id": "a"}).json_line()) == PAIR | {"id": "a"}
    assert json.loads(Pair.model_validate(PAIR | {"id": "a", "answer": None}).json_line())["answer"] is None


def test_no_stage_removes_fields_of_a_row() -> None:
    problem = Problem.model_validate({"prompt": "1 + 1", "answer": "2", "level": 1})
    row = json.loads(problem.json_line())
    sample = Sample.model_validate(row | {"response": "3", "verdict": "wrong", "sampling": {"model": "m"}})
    pair = Pair.model_validate(json.loads(sample.json_line()) | {"rejected": "3", "chosen": "2", "verdict": "right"})
    assert json.loads(pair.json_line()).items() >= (row | {"response": "3", "chosen": "2", "level": 1}).items()


@given(unknown=st.dictionaries(NAME, JSON, max_size=4), prompt=TEXT.filter(bool), rejected=TEXT.filter(bool))
def test_unknown_fields_and_any_text_are_kept(unknown: dict[str, Any], prompt: str, rejected: str) -> None:
    row = unknown | {"id": "a", "prompt": prompt, "rejected": rejected, "chosen": "2", "oracle": {"raw": unknown}}
    row = {
        name: value for name, value in row.items() if name in (*PAIR, "id", "oracle") or name not in Pair.model_fields
    }
    line = Pair.model_validate(row).json_line()
    assert "\n" not in line
    assert json.loads(line) == row


def test_an_unknown_field_may_have_the_name_of_a_method() -> None:
    row = {"id": "a", "prompt": "p", "key": 1, "messages": 2, "json_line": 3, "model_config": 4, "copy": 5}
    assert json.loads(Problem.model_validate(row).json_line()) == row


def test_python_values_are_written_as_json(tmp_path: Path) -> None:
    sample = Sample.model_validate(SAMPLE | {"sampling": {"model": tmp_path}})
    assert json.loads(sample.json_line())["sampling"] == {"model": str(tmp_path)}


@pytest.mark.parametrize("model", [Problem, Sample, Pair, Score])
def test_aliases_name_fields_and_hide_none(model: type[Row]) -> None:
    assert set(model.aliases.values()) <= model.model_fields.keys()
    assert not model.aliases.keys() & model.model_fields.keys()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "  ",
        "nan",
        "NaN",
        "-nan",
        "None",
        "null",
        "N/A",
        "n/a",
        "#N/A",
        "<NA>",
        "NaT",
        "1e400",
        "-1e999",
        "inf",
        "-inf",
        "Inf",
        '""',
        "''",
        "-",
        "--",
        "\u2014",
        " - ",
    ],
)
def test_a_placeholder_is_not_a_reference_answer(answer: str | None) -> None:
    assert Problem(prompt="1 + 1?", answer=answer).reference is None


@pytest.mark.parametrize(
    ("answer", "grader"),
    [
        ("2", None),
        ("\\infty", None),
        ("infinity", None),
        ("DNE", None),
        ("0", "math"),
        ("None", "coordinates"),
        ("-1", None),
    ],
)
def test_other_texts_are_reference_answers(answer: str, grader: str | None) -> None:
    assert Problem(prompt="1 + 1?", answer=answer, grader=grader).reference == answer
