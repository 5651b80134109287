"""Rows of a training file: spot's own format and those of TRL, invalid rows, tools, and rejections by a template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spotcli.core.forward.encoding import EncodedPair
from spotcli.decisions import Event, ReviewFile, text_digest
from spotcli.errors import DataError, UserError
from spotcli.recipe import Recipe
from spotcli.records import Pair
from spotcli.stages.train import train
from spotcli.training.data import TrainingData, load_data
from spotcli.training.rows import read_pairs
from spotcli.training.starting_model import StartingModel
from tests.stages.test_train import pair, recipe, write
from tests.training.models_for_tests import CHATML, SPECIALS, save_configs, tokenizer

ROWS = [pair(number) for number in range(6)]

TOOLS = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is defined and m.content is not none %}{{ m.content }}{% else %}-{% endif %}"
    "{% if m.tool_calls %}<call>{{ m.tool_calls | tojson }}</call>{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ALTERNATE = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def model(folder: Path, template: str = CHATML, added: tuple[str, ...] = ()) -> Path:
    return save_configs(folder / "model", "llama", tokenizer(SPECIALS, "<|im_end|>", template, added))


def load(folder: Path, rows: list[Any], template: str = CHATML, **section: Any) -> TrainingData:
    write(folder, rows)
    settings = recipe(model(folder, template), **section)
    return load_data(settings, folder / "data.jsonl", rough=False, start=StartingModel(vocabulary=258))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def as_answers(row: dict[str, Any]) -> dict[str, Any]:
    """Prompt and answers as lists of messages."""
    answers = {side: [assistant(row[side])] for side in ("chosen", "rejected")}
    return {"prompt": [user(row["prompt"])], **answers}


def as_chats(row: dict[str, Any]) -> dict[str, Any]:
    """The prompt is what both chats begin with."""
    return {side: [user(row["prompt"]), assistant(row[side])] for side in ("chosen", "rejected")}


FORMATS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "messages": as_answers,
    "implicit prompt": as_chats,
    "UltraFeedback": lambda row: as_chats(row) | {
        "prompt": row["prompt"], "prompt_id": "x" + row["id"], "messages": as_chats(row)["chosen"], "score_chosen": 8.0,
    },
    "text with turns": lambda row: {
        side: f"\n\nHuman: {row['prompt']}\n\nAssistant: {row[side]}" for side in ("chosen", "rejected")
    },
    "parts of text": lambda row: row | {
        "prompt": [{"role": "user", "content": [{"type": "text", "text": row["prompt"]}]}],
    },
    "numbers": lambda row: row | {"id": int(row["id"][1:]), "answer": 7},
    "other uses of the names": lambda row: row | {
        "oracle": "gpt-4o", "source": ["gsm8k"], "verdict": "correct", "change_ratio": "0.1", "grader": 3,
    },
    "no ids": lambda row: {name: value for name, value in row.items() if name != "id"},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_the_formats_of_other_tools_are_read_as_the_same_pairs(tmp_path: Path, name: str, ending: str) -> None:
    expected = load(tmp_path / "own", ROWS).pairs
    rows = [FORMATS[name](row) for row in ROWS]
    folder = tmp_path / "other"
    settings = recipe(model(folder), data=f"data.{ending}")
    if ending == "jsonl":
        write(folder, rows)
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "data.parquet")
    data = load_data(settings, folder / f"data.{ending}", rough=False, start=StartingModel())
    assert data.pairs == expected
    assert (data.encoded.read, dict(data.encoded.dropped)) == (len(ROWS), {})


@pytest.mark.parametrize(
    ("rows", "read_as"),
    [
        ([{"messages": as_chats(row)["chosen"]} for row in ROWS], {"messages": "prompt and chosen"}),
        ([{"prompt": row["prompt"], "completion": row["chosen"]} for row in ROWS], {"completion": "chosen"}),
        ([{"prompt": [user(row["prompt"])], "completion": [assistant(row["chosen"])]} for row in ROWS],
         {"completion": "chosen"}),
    ],
)  # fmt: skip
def test_formats_with_one_answer_are_read_for_sft(
    tmp_path: Path, rows: list[dict[str, Any]], read_as: dict[str, str]
) -> None:
    data = load(tmp_path, rows, objective="sft")
    own = load(tmp_path / "own", [{**row, "rejected": None} for row in ROWS], objective="sft")
    assert data.pairs == own.pairs
    assert data.renamed == read_as


def test_several_pairs_of_one_prompt_need_no_ids(tmp_path: Path) -> None:
    rows = [{**row, "prompt": "1 + 1"} for row in ROWS]
    for row in rows:
        del row["id"]
    assert len(load(tmp_path, rows).pairs) == len(rows)


def test_decisions_of_reviewers_are_applied(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    pairs = [Pair.model_validate(row) for row in ROWS[:4]]
    made: list[dict[str, Any]] = [
        {"decision": "accept"},
        {"decision": "reject"},
        {"decision": "edited", "chosen": "by hand"},
        {"decision": "reject", "digest": "another text"},
    ]
    events = [
        Event.model_validate({"time": "", "action": pair.id, "key": pair.key, "digest": text_digest(pair), **decision})
        for pair, decision in zip(pairs, made, strict=True)
    ]
    review = ReviewFile(tmp_path / "data.jsonl")
    review.append(events)
    review.close()
    data = load(tmp_path, ROWS)
    assert data.reviewed.counts == {"accept": 1, "reject": 1, "edited": 1, "stale": 1}
    assert data.encoded.dropped == {"rejected in review": 1}
    assert len(data.pairs) == len(ROWS) - 1
    plain = load(tmp_path / "plain", ROWS)
    changed = [pair for pair in data.pairs if pair not in plain.pairs]
    assert len(changed) == 1
    assert data.reviewed.digest != plain.reviewed.digest is None


def test_answers_that_are_the_same_train_where_only_one_is_used(tmp_path: Path) -> None:
    rows = [{**row, "rejected": row["chosen"]} for row in ROWS]
    assert len(load(tmp_path / "sft", rows, objective="sft").pairs) == len(rows)
    with pytest.raises(DataError, match="6 chosen and rejected are the same"):
        load(tmp_path / "dpo", rows, objective="dpo")


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "an empty rejected answer": ({"rejected": ""}, "the field 'rejected': expected a non-empty value"),
    "an empty prompt": ({"prompt": ""}, "the field 'prompt': expected a non-empty value"),
    "null content": ({"prompt": [{"role": "user", "content": None}]}, r"prompt\.0\.content"),
    "an image": ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, "got a part of type 'image'"),
    "another role": ({"chosen": [user("2")], "rejected": [user("3")]}, "expected a message of the assistant"),
    "two answers": ({"chosen": [assistant("2"), user("?"), assistant("3")], "rejected": [assistant("4")]},
                    "expected one message after those that both answers share, got 3"),
    "tool calls": ({"chosen": [{"role": "assistant", "content": None, "tool_calls": [{}]}], "rejected": "3"},
                   "got tool calls"),
    "a duplicate id": ({"id": "p0"}, r"duplicate key \('p0', 0\)"),
    "tools": ({"tools": [{"name": "add"}]}, "no place for tools"),
    "a token without embedding": ({"prompt": "<tool>"}, r"token 258 \('<tool>'\) is beyond the model's embedding"),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_row_is_counted_and_named(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes, message = INVALID[name]
    rows = [*ROWS, pair(9, **changes)]
    write(tmp_path, rows)
    folder = model(tmp_path, added=("<tool>",))
    settings = recipe(folder)
    data = load_data(settings, tmp_path / "data.jsonl", rough=False, start=StartingModel(vocabulary=258))
    assert (len(data.pairs), data.encoded.read, dict(data.encoded.dropped)) == (6, 7, {"invalid": 1})
    (error,) = data.invalid.first
    assert error.where == f"{tmp_path / 'data.jsonl'}:7"
    with pytest.raises(DataError, match=message):
        raise error
    strict = recipe(folder, max_bad_rows=0)
    with pytest.raises(DataError, match=message) as caught:
        load_data(strict, tmp_path / "data.jsonl", rough=False, start=StartingModel(vocabulary=258))
    assert caught.value.where == f"{tmp_path / 'data.jsonl'}:7"


def test_a_run_names_the_first_three_invalid_rows(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, [*ROWS, *(pair(number, chosen="") for number in range(10, 14))])
    with path.open("a") as file:
        file.write("{this is no JSON\n")
    summary = train(recipe(tiny_model, num_train_epochs=1), folder=tmp_path)
    assert (summary.rows, summary.pairs, summary.dropped) == (11, 6, {"invalid": 5})
    shown = capsys.readouterr().err
    assert [f"left out: {path}:{line}: " in shown for line in (7, 8, 9, 10)] == [True, True, True, False]
    assert "6 of 11 pairs" in shown


def test_more_invalid_rows_than_allowed_are_an_error(tmp_path: Path) -> None:
    bad = [pair(number, chosen="") for number in range(20, 32)]
    many = [pair(number) for number in range(20)]
    with pytest.raises(DataError, match=r"more than 10 rows are invalid \(train.max_bad_rows\)") as caught:
        load(tmp_path / "many", [*many, *bad])
    assert caught.value.where == f"{tmp_path / 'many' / 'data.jsonl'}:21"
    assert len(load(tmp_path / "allowed", [*many, *bad], max_bad_rows=12).pairs) == 20
    # A file that is mostly of another format is not trained on by default.
    with pytest.raises(DataError, match="2 of 4 rows are invalid"):
        load(tmp_path / "half", [*ROWS[:2], *bad[:2]])
    assert len(load(tmp_path / "given", [*ROWS[:2], *bad[:2]], max_bad_rows=5).pairs) == 2


@pytest.mark.parametrize(
    ("rows", "message", "cure"),
    [
        ([{"prompt": "1", "completion": "2", "label": True}], "the format of KTO", "two completions of one prompt"),
        ([{"instruction": "1", "output": "2"}], "the field 'prompt' is missing", "docs/training.md"),
    ],
)
def test_files_of_another_kind_are_refused_with_a_suggestion(
    tmp_path: Path, rows: list[dict[str, Any]], message: str, cure: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, rows)
    assert caught.value.where == f"{tmp_path / 'data.jsonl'}:1"
    assert cure in str(caught.value.cure)


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.parquet").write_bytes(b"PAR1\x00\x15")
    with pytest.raises(UserError, match="failed to read the Parquet file"):
        list(read_pairs(tmp_path / "data.parquet", Pair, invalid=lambda error: None))


def test_rows_of_an_evaluation_are_never_only_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="belongs to an evaluation"):
        load(tmp_path, [*ROWS, pair(9, split="eval")])


def prompt_text(folder: Path, data: TrainingData) -> str:
    """The prompt of the first pair, as the policy reads it."""
    from spotcli.policies.models import load_tokenizer

    first: EncodedPair = data.pairs[0]
    return str(load_tokenizer(str(folder / "model")).decode(list(first.prompt_ids)))


CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {}}}


@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL])])
def test_tools_and_calls_are_rendered_as_the_template_does(tmp_path: Path, tools: Any) -> None:
    messages = [
        user("1 + 1"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2"},
    ]
    data = load(tmp_path, [pair(1, prompt=messages, tools=tools)], TOOLS)
    made = tokenizer(SPECIALS, "<|im_end|>", TOOLS)
    expected = made.apply_chat_template(messages, tools=[TOOL], tokenize=False, add_generation_prompt=True)
    assert prompt_text(tmp_path, data) == expected
    assert '"arguments": {"a": 1}' in expected
    assert "<|im_start|>assistant\n-<call>" in expected
    # A row keeps the fields of its messages.
    line = Pair.model_validate(pair(1, prompt=messages)).json_line()
    assert json.loads(line)["prompt"][1]["tool_calls"] == [CALL]


def test_several_system_prompts_are_rendered_or_refused_by_row(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "system", "content": "Be kind."}, user("1 + 1")]
    data = load(tmp_path / "rendered", [pair(1, prompt=chat)])
    assert "Be brief.<|im_end|>\n<|im_start|>system\nBe kind." in prompt_text(tmp_path / "rendered", data)
    with pytest.raises(DataError, match="rejects the messages: Conversation roles must alternate") as caught:
        load(tmp_path / "refused", [pair(1, prompt=chat)], ALTERNATE)
    assert caught.value.where == f"{tmp_path / 'refused' / 'data.jsonl'}:1"


def test_template_arguments_of_a_row_are_passed_on(tmp_path: Path) -> None:
    template = "{{ tone | default('plain') }}\n" + CHATML
    rows = [pair(1), pair(2, chat_template_kwargs={"tone": "kind"})]
    write(tmp_path, rows)
    data = load_data(recipe(model(tmp_path, template)), tmp_path / "data.jsonl", rough=False, start=StartingModel())
    made = tokenizer(SPECIALS, "<|im_end|>", template)
    assert [made.decode(encoded.prompt_ids).split("\n")[0] for encoded in data.pairs] == ["plain", "kind"]


def test_a_model_without_a_template_is_an_error_before_weights_are_loaded(tmp_path: Path) -> None:
    write(tmp_path, ROWS)
    folder = save_configs(tmp_path / "model", "llama", tokenizer(SPECIALS, "<|im_end|>", None))
    with pytest.raises(UserError, match="no chat template") as caught:
        train(Recipe.model_validate({"model": str(folder)}), folder=tmp_path)
    assert "chat_template.jinja" in str(caught.value.cure)
