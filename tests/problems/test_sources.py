"""Problem sets by name: published files as they are, and invalid rows."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from spotcli.errors import DataError, UserError
from spotcli.grading import grade_many
from spotcli.problems.conflicts import Conflict, Repeats, prompt_key
from spotcli.problems.seen import Seen
from spotcli.problems.sources import iter_problems
from spotcli.records import Problem
from tests.conftest import write_rows

WRAPPED = "Solve this.\n\n{}\n\nEnd with a line that begins with Answer:"

VERL = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
        ("extra_info", pa.struct([("index", pa.string())])),
    ]
)
"""The schema of sets that verl publishes."""


def read(folder: Path, name: str, limit: int | None = None, *, quiet: bool = False) -> list[Problem]:
    return list(iter_problems(name, folder=folder, seed=0, limit=limit, quiet=quiet))


def verl_row(question: str, answer: str, index: int) -> dict[str, Any]:
    return {
        "data_source": "math_dapo",
        "prompt": [{"content": WRAPPED.format(question), "role": "user"}],
        "ability": "MATH",
        "reward_model": {"ground_truth": answer, "style": "rule"},
        "extra_info": {"index": f"{index:08x}"},
    }


def write_parquet(path: Path, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> None:
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path)


def refused(folder: Path, name: str) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, name)
    return str(caught.value)


# Published files


@pytest.mark.parametrize(
    ("name", "number", "first", "renamed"),
    # References of the files' first rows, read by eye:
    # "... 72 clips altogether in April and May.\n#### 72", "solution": "80", answer 27.0, "... \boxed{1.6} \mathrm",
    # final_answer ["2"].
    [
        ("dapo_math_en_1k", 1000, "80", "'solution' as 'answer'"),
        ("gsm8k_train_1k", 1000, "72", "'answer after ####' as 'answer', 'question' as 'prompt'"),
        ("gsm8k_test", 1319, "18", "'answer after ####' as 'answer', 'question' as 'prompt'"),
        ("math500", 500, r"\left( 3, \frac{\pi}{2} \right)", "'problem' as 'prompt'"),
        ("aime24", 30, "204", "'question' as 'prompt'"),
        ("aime25", 30, "70", "'problem' as 'prompt'"),
        ("amc23", 40, "27", "'question' as 'prompt'"),
        ("minerva", 272, "1.6", "'final answer of solution' as 'answer', 'problem' as 'prompt'"),
        ("olympiadbench", 675, "2", "'final_answer' as 'answer', 'question' as 'prompt'"),
    ],
)
def test_published_sets_are_read_as_they_are(
    shared: Path, capsys: pytest.CaptureFixture[str], name: str, number: int, first: str, renamed: str
) -> None:
    problems = read(shared, f"{name}.jsonl")
    assert len(problems) == len({problem.id for problem in problems}) == number
    assert problems[0].answer == first
    assert problems[0].source == f"{name}.jsonl#1"
    assert capsys.readouterr().err == f"{name}.jsonl: read {renamed}\n"
    # If a reference were not equal to itself for the grader, every answer to it would be undecided.
    references = [problem.answer or "" for problem in problems]
    grades = grade_many([(f"\\boxed{{{reference}}}", reference) for reference in references])
    assert Counter(grade.verdict for grade in grades) == {"right": number}


def test_numeric_references_become_text(shared: Path) -> None:
    # The file has floats: 27.0, 36.0, 45.0, 3159.0 ...
    assert [problem.answer for problem in read(shared, "amc23.jsonl", 4)] == ["27", "36", "45", "3159"]
    # and row ids that are numbers, such as 0.
    assert [problem.id for problem in read(shared, "amc23.jsonl", 3)] == ["0", "1", "2"]


def test_a_verl_set_is_read_as_published_without_repeated_prompts(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (shared / "dapo_math_en_1k.jsonl").read_text("utf-8").splitlines()]
    published = [verl_row(row["prompt"], row["solution"], index) for index, row in enumerate(rows)]
    write_parquet(tmp_path / "dapo.parquet", published * 3, VERL)
    problems = read(tmp_path, "dapo.parquet")
    assert len(problems) == 1000
    assert problems[0].prompt == [{"role": "user", "content": WRAPPED.format(rows[0]["prompt"])}]
    assert [problem.answer for problem in problems] == [row["solution"] for row in rows]
    assert problems[7].source == "dapo.parquet#8"
    assert problems[7].model_dump()["extra_info"] == {"index": "00000007"}
    assert capsys.readouterr().err == (
        "dapo.parquet: read 'reward_model.ground_truth' as 'answer'\n"
        # 3 x 1000 rows of 1000 prompts.
        "dapo.parquet: skipped 2000 rows with a repeated prompt; 1000 problems remain\n"
    )


def test_messages_may_have_different_fields(tmp_path: Path) -> None:
    first = [{"role": "system", "content": "Be brief.", "name": "house"}, {"role": "user", "content": "1 + 1?"}]
    write_parquet(tmp_path / "p.parquet", [{"prompt": first, "answer": "2"}])
    assert read(tmp_path, "p.parquet")[0].prompt == first


def test_a_solution_without_a_final_answer_is_no_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof = (
        "Suppose that it were rational. Then p and q would both be even.\nThis contradicts that they have no factor."
    )
    rows: list[dict[str, Any]] = [
        {"problem": "Prove it.", "solution": proof},
        {"problem": "1 + 1?", "solution": "One and one are $\\boxed{2}$."},
        {"problem": "1 + 2?", "answer": None, "solution": "3"},
    ]
    write_rows(tmp_path / "p.jsonl", rows)
    problems = read(tmp_path, "p.jsonl")
    assert [problem.answer for problem in problems] == [None, "2", "3"]
    assert problems[0].model_dump()["solution"] == proof
    assert "1 problems have no reference answer; their answers will be undecided" in capsys.readouterr().err


def test_nan_is_a_missing_value(tmp_path: Path) -> None:
    rows = [
        {"id": 1.0, "prompt": "a", "answer": float("nan"), "ground_truth": 0.5},
        {"id": float("nan"), "prompt": "b", "answer": 1e20, "ground_truth": float("nan")},
    ]
    write_parquet(tmp_path / "p.parquet", rows)
    first, second = read(tmp_path, "p.parquet")
    assert (first.id, first.answer) == ("1", "0.5")
    assert second.answer == "100000000000000000000"
    assert len(second.id) == 16


def test_csv_cells_are_text_and_may_contain_commas_quotes_and_lines(tmp_path: Path) -> None:
    text = '\ufeffid,question,answer,level\nx,"Is ""1,000""\nmore, or\nless?",0012,3\n\n,b,,4\n'
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    first, second = read(tmp_path, "p.csv")
    assert first.model_dump(exclude_unset=True) == {
        "id": "x", "prompt": 'Is "1,000"\nmore, or\nless?', "answer": "0012", "level": "3", "source": "p.csv#1",
    }  # fmt: skip
    assert (second.answer, len(second.id)) == (None, 16)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_file_format_gives_the_same_problems(tmp_path: Path, ending: str) -> None:
    rows = [{"id": f"p{index}", "prompt": f"{index} + 1?", "answer": str(index + 1)} for index in range(3000)]
    if ending == "jsonl":
        write_rows(tmp_path / "p.jsonl", rows)
    elif ending == "csv":
        lines = ["id,prompt,answer", *(",".join(row.values()) for row in rows)]
        (tmp_path / "p.csv").write_text("\n".join(lines), encoding="utf-8")
    else:
        write_parquet(tmp_path / "p.parquet", rows)
    problems = read(tmp_path, f"p.{ending}")
    assert [problem.model_dump(include={"id", "prompt", "answer"}) for problem in problems] == rows
    assert problems[2999].source == f"p.{ending}#3000"
    assert [problem.id for problem in read(tmp_path, f"p.{ending}", 2)] == ["p0", "p1"]


# The hub


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that also has the cache of data sets, which is usually in the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_a_folder_of_data_files_is_read_like_a_hub_data_set(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cached / "set").mkdir()
    for split in ("train", "test"):
        rows = [{"question": f"{split} {number}?", "answer": f"So it is\n#### {number}"} for number in (5, 6)]
        write_rows(cached / "set" / f"{split}.jsonl", rows)
    assert [(problem.prompt, problem.answer) for problem in read(cached, "hf:set")] == [
        ("train 5?", "5"),
        ("train 6?", "6"),
    ]
    test = read(cached, "hf:set:default:test")
    assert [problem.model_dump() for problem in test] == [
        problem.model_dump() | {"source": (problem.source or "").replace("::", ":default:")}
        for problem in read(cached, "hf:set::test")
    ]
    assert test[1].source == "hf:set:default:test#2"
    assert "hf:set: read 'answer after ####' as 'answer', 'question' as 'prompt'" in capsys.readouterr().err
    assert "Unknown split \"valid\". Should be one of ['train', 'test']" in refused(cached, "hf:set::valid")
    assert "BuilderConfig 'other' not found" in refused(cached, "hf:set:other")
    assert "cure: use hf:set to read a folder" in refused(cached, "set").replace(str(cached) + "/", "")


def test_a_single_split_is_used_and_several_without_train_are_refused(cached: Path) -> None:
    (cached / "set").mkdir()
    write_rows(cached / "set" / "test.jsonl", [{"problem": "a", "answer": "1"}])
    assert len(read(cached, "hf:set")) == 1
    write_rows(cached / "set" / "validation.jsonl", [{"problem": "b", "answer": "1"}])
    message = refused(cached, "hf:set")
    assert "a split is required: the data set has validation, test, but no train" in message
    assert "::validation or another split" in message


def test_the_parts_of_a_hub_name_are_config_and_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def load_dataset(path: str, config: str | None, *, split: str | None) -> Any:
        calls.append((path, config, split))
        rows = [verl_row("1 + 1?", "2", 0), verl_row("1 + 1?", "2", 0), verl_row("2 + 2?", "4", 1)]
        data = datasets.Dataset.from_list(rows)
        return data if split else datasets.DatasetDict({"train": data})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    names = ["hf:org/name", "hf:org/name:main", "hf:org/name:main:test", "hf:org/name::test"]
    for name in names:
        problems = read(tmp_path, name)
        assert [(problem.answer, problem.source) for problem in problems] == [("2", f"{name}#1"), ("4", f"{name}#3")]
        assert problems[0].messages[0]["content"] == WRAPPED.format("1 + 1?")
    assert calls == [
        ("org/name", None, None),
        ("org/name", "main", None),
        ("org/name", "main", "test"),
        ("org/name", None, "test"),
    ]


def test_an_unreachable_data_set_is_one_message_with_the_cure(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    message = refused(cached, "hf:nobody/has-this")
    assert message.startswith("hf:nobody/has-this: failed to load the data set: Couldn't reach 'nobody/has-this'")
    assert "cure: use hf:NAME" in message


DAMAGED: dict[str, dict[str, bytes]] = {
    "a file of no rows": {"test.jsonl": b""},
    "a card that is not YAML": {"test.jsonl": b'{"prompt": "a", "answer": "1"}\n', "README.md": b"---\na: [b\n---\n"},
    "half a file": {"test.jsonl.gz": b"\x1f\x8b\x08half"},
    "no archive": {"set.zip": b"PK\x03\x04half"},
    "a script": {"set.py": b"import datasets\n"},
    "two kinds of rows": {"a.jsonl": b'{"prompt": "a"}\n', "b.jsonl": b'{"text": 5}\n'},
    "another encoding": {"test.csv": "prompt,answer\ngro\u00df,2\n".encode("latin-1")},
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_folder_is_one_message_with_the_reason(cached: Path, kind: str) -> None:
    (cached / "set").mkdir()
    for name, content in DAMAGED[kind].items():
        (cached / "set" / name).write_bytes(content)
    message = refused(cached, "hf:set")
    assert message.startswith("hf:set: failed to load the data set: ")
    assert "An error occurred while generating the dataset" not in message
    assert "cure: check the files in the folder" in message


def test_a_folder_without_the_content_of_its_files_names_one(cached: Path) -> None:
    (cached / "set").mkdir()
    (cached / "set" / "test.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    message = refused(cached, "hf:set")
    assert message.startswith(f"{cached / 'set' / 'test.parquet'}: expected a data file, got a git-lfs pointer")
    assert "git lfs pull" in message


def test_a_saved_data_set_and_its_files_are_read(cached: Path) -> None:
    rows = [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": "2"}]
    datasets.Dataset.from_list(rows).save_to_disk(cached / "09:30" / "set")
    (file,) = (cached / "09:30" / "set").glob("*.arrow")
    for name in ("hf:09:30/set", str(file)):
        assert [(problem.prompt, problem.answer) for problem in read(cached, name)] == [("a", "1"), ("b", "2")]


def test_the_split_is_named_if_there_are_several(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cached / "set").mkdir()
    for split in ("train", "test"):
        write_rows(cached / "set" / f"{split}.jsonl", [{"prompt": split, "answer": "1"}])
    assert read(cached, "hf:set")[0].prompt == "train"
    assert "hf:set: reading the split train of train, test; " in capsys.readouterr().err
    assert read(cached, "hf:set::test")[0].prompt == "test"
    assert "reading the split" not in capsys.readouterr().err


# Tables of spreadsheets and data frames


@pytest.mark.parametrize(
    "content",
    [
        b"Question,Answer\n1 + 1?,2\n2, 4\n",
        b"PROMPT;Answer\n1 + 1?;2\n2;4\n",
        b"prompt\tanswer\n1 + 1?\t2\n2\t4\n",
        b'"prompt", "answer"\n"1 + 1?", "2"\n"2", "4"\n',
        b"\xef\xbb\xbfprompt;answer;;\r\n1 + 1?;2;;\r\n;;;\r\n2;4;;\r\n;;;\r\n",
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.csv").write_bytes(content)
    assert [(problem.prompt, problem.answer) for problem in read(tmp_path, "p.csv")] == [("1 + 1?", "2"), ("2", "4")]


def test_columns_in_another_case_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_parquet(tmp_path / "p.parquet", [{"ID": "2024-I-1", "Problem": "a", "Solution": "so 2", "Answer": 2}])
    (problem,) = read(tmp_path, "p.parquet")
    assert (problem.prompt, problem.answer) == ("a", "2")
    assert "'Answer' as 'answer'" in capsys.readouterr().err
    # Only a name that is not taken.
    write_rows(tmp_path / "p.jsonl", [{"prompt": "a", "answer": "1", "Answer": "2"}])
    assert read(tmp_path, "p.jsonl")[0].answer == "1"


def test_a_list_in_a_cell_is_read_or_refused(tmp_path: Path) -> None:
    r"""A data frame writes ['$\\frac12$'], where the backslash is doubled and numpy omits the commas."""
    (tmp_path / "p.csv").write_text('question,final_answer\na,"[""$\\\\frac12$"", ""3""]"\nb,7\n')
    assert [problem.answer for problem in read(tmp_path, "p.csv")] == [r"$\frac12$, 3", "7"]
    (tmp_path / "p.csv").write_text("question,final_answer\na,\"['2' '3']\"\n")
    message = refused(tmp_path, "p.csv")
    assert "p.csv: row 1: expected a list as JSON in 'final_answer', got \"['2' '3']\"" in message


MEANT = "the prompt does not contain the choices"
INDEX = "expected the letter of a choice in 'answer', got its index"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"options": ["Sun", "Moon"], "answer": "A", "answer_index": 0}, MEANT),
        ({"choices": {"text": ["Sun", "Moon"], "label": ["A", "B"]}, "answer": "(B)"}, MEANT),
        ({"options": {"A": "Sun", "B": "Moon"}, "answer": "B"}, MEANT),
        ({"options": [{"key": "A", "value": "Sun"}, {"key": "B", "value": "Moon"}], "answer": "B"}, MEANT),
        ({"A": "Sun", "B": "Moon", "C": "Mars", "Answer": "C"}, MEANT),
        ({"options": "['Sun' 'Moon']", "answer": "A"}, MEANT),
        ({"options": ["Sun", "Moon"], "answer": 1}, INDEX),
        ({"options": ["1", "2"], "answer": 1.0}, INDEX),
        ({"choices": "['Sun', 'Moon']", "answer": "1"}, INDEX),
        # The answer is no choice's letter, or the prompt has the choices.
        ({"options": ["Sun", "Moon"], "answer": "Sun"}, None),
        ({"options": ["Sun", "Moon"], "answer": "x"}, None),
        ({"choices": ["3", "4"], "answer": "4"}, None),
        ({"options": ["10", "20"], "answer": 20}, None),
        ({"prompt": "Which?\nA. Sun\nB. Moon", "options": ["the Sun", "the Moon"], "answer": "A"}, None),
        ({"prompt": "Which: sun, or moon?", "choices": ["Sun", "Moon"], "answer": "A"}, None),
        ({"prompt": [{"role": "user", "content": "Which? (A) 1 (B) 2"}], "options": ["x", "y"], "answer": "A"}, None),
    ],
)
def test_a_question_without_its_choices_is_refused(tmp_path: Path, row: dict[str, Any], message: str | None) -> None:
    write_rows(tmp_path / "p.jsonl", [{"prompt": "Which is a star?", **row}])
    if message:
        assert message in refused(tmp_path, "p.jsonl")
    else:
        assert len(read(tmp_path, "p.jsonl")) == 1


# Invalid rows


def test_repeated_prompts_are_skipped_and_ids_are_unique(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "1", "prompt": "a", "answer": "1"}
    write_rows(tmp_path / "p.jsonl", [row, row, row | {"id": "2"}, row | {"id": "3", "prompt": "b"}])
    assert [problem.id for problem in read(tmp_path, "p.jsonl")] == ["1", "3"]
    assert "p.jsonl: skipped 2 rows with a repeated prompt; 2 problems remain" in capsys.readouterr().err
    assert len(read(tmp_path, "p.jsonl", quiet=True)) == 2
    assert capsys.readouterr().err == ""

    write_rows(tmp_path / "p.jsonl", [row, row | {"prompt": "b"}])
    with pytest.raises(DataError, match=r"p\.jsonl:2: duplicate id '1' with a different prompt"):
        read(tmp_path, "p.jsonl")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "1"}, "the field 'prompt' is missing"),
        ({"prompt": ""}, "the field 'prompt': expected a non-empty value"),
        ({"prompt": [{"role": "user"}]}, "the field 'prompt.0.content' is missing"),
        ({"prompt": "a", "answer": True}, "the field 'answer'"),
        ({"prompt": "a", "answer": [[1]]}, "got a list of other values"),
        (
            {"prompt": "a", "choices": ["x", "y"], "answer": 1},
            "expected the letter of a choice in 'answer', got its index",
        ),
        ({"prompt": "a", "id": [1]}, "the field 'id'"),
    ],
)
def test_an_invalid_row_is_reported_with_its_place_and_the_cure(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    write_rows(tmp_path / "p.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(DataError) as caught:
        read(tmp_path, "p.jsonl")
    assert caught.value.where == f"{tmp_path / 'p.jsonl'}:2"
    assert message in caught.value.message
    assert caught.value.cure


def test_an_invalid_parquet_row_is_reported_with_its_number(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", [{"prompt": "fine", "answer": "1"}, {"prompt": None, "answer": "1"}])
    assert f"{tmp_path / 'p.parquet'}: row 2: the field 'prompt'" in refused(tmp_path, "p.parquet")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"prompt,answer\na,1\nb\n", "p.csv:3: invalid CSV: expected 2 cells as in the header, got 1"),
        ("p.csv", b"prompt,answer\na,1,2\n", "p.csv:2: invalid CSV: expected 2 cells as in the header, got 3"),
        ("p.csv", b'prompt,answer\na,"1\n', "p.csv:2: invalid CSV: unexpected end of data"),
        ("p.csv", b"prompt,answer\n\xff,1\n", "invalid CSV: 'utf-8' codec can't decode byte 0xff"),
        ("p.csv", b"prompt,answer\na,1\n\xff,1\n", "p.csv:3: invalid CSV: 'utf-8' codec can't decode byte 0xff"),
        ("p.csv", b"prompt,answer,answer\na,1,2\n", "p.csv:1: duplicate column 'answer'"),
        ("p.csv", b"text,answer\na,1\n", "p.csv: row 1: the field 'prompt' is missing"),
        ("p.csv", b"text,answer\na,1\n", "this row has text, answer"),
        ("p.csv", b"", "p.csv: the problem set is empty"),
        ("p.jsonl", b"\n", "p.jsonl: the problem set is empty"),
        ("p.parquet", b"PAR1 or not", "p.parquet: failed to read the Parquet file"),
    ],
)
def test_an_invalid_file_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refused(tmp_path, name)


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.csv", "nowhere.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, name).startswith(f"{tmp_path / name}: file not found\n  cure:")


def test_a_link_to_nothing_names_its_target(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").symlink_to(tmp_path / "moved.jsonl")
    assert f"cure: the link points to {tmp_path / 'moved.jsonl'}, which does not exist" in refused(tmp_path, "p.jsonl")


def test_an_unknown_built_in_set_lists_the_available_ones(tmp_path: Path) -> None:
    assert len(read(tmp_path, "builtin:arithmetic")) == 600
    assert len(read(tmp_path, "builtin:arithmetic", 7)) == 7
    assert "cure: available: builtin:arithmetic" in refused(tmp_path, "builtin:algebra")


# Size


def test_a_hash_takes_at_most_sixteen_bytes() -> None:
    seen, number = Seen(), 50_000
    # Keys of the same slots, and 0, which marks an empty slot.
    keys = [
        0,
        *(key * 1024 for key in range(2, number // 2)),
        *(key * 0x9E3779B97F4A7C15 % 2**64 for key in range(9, number)),
    ]
    assert [seen.add(key) for key in keys] == [True] * len(keys)
    assert not any(seen.add(key) for key in keys)
    # The table grows by half when it is four fifths full: 8 / 0.8 = 10 bytes per hash, and 15 after growing.
    assert 10 <= seen._table.itemsize * len(seen._table) / len(keys) <= 15.1


def test_memory_does_not_depend_on_the_length_of_the_file(tmp_path: Path) -> None:
    with parquet.ParquetWriter(tmp_path / "p.parquet", VERL, compression="none") as writer:
        for start in range(0, 10_000, 5000):
            rows = [verl_row(f"{index} {'x' * 4000}", "1", index) for index in range(start, start + 5000)]
            writer.write_table(pa.Table.from_pylist(rows, schema=VERL))
    del rows
    assert (tmp_path / "p.parquet").stat().st_size > 40_000_000
    before = pa.total_allocated_bytes()
    most = 0
    tracemalloc.start()
    for number, _ in enumerate(iter_problems("p.parquet", folder=tmp_path, seed=0, limit=None)):
        if number % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == 9_999
    # 1024 rows of 4 kB are 4 MB in Arrow and in Python each; a few batches may be in memory at once.
    assert most < 25_000_000
    assert peak < 25_000_000


def test_a_placeholder_does_not_hide_the_reference_answer(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "a", "answer": "nan", "ground_truth": "5"},
        {"prompt": "b", "answer": "-", "reward_model": {"ground_truth": "6"}},
        {"prompt": "c", "answer": "", "final_answer": ["7"]},
        {"prompt": "d", "answer": "N/A", "solution": "It is \\boxed{8}."},
        {"prompt": "e", "answer": "No idea.\n#### None"},
        {"prompt": "f", "answer": "null", "ground_truth": "", "final_answer": ["nan"]},
    ]
    write_rows(tmp_path / "p.jsonl", rows)
    columns = {name: None for row in rows for name in row}
    write_parquet(tmp_path / "p.parquet", [columns | row for row in rows])
    for name in ("p.jsonl", "p.parquet"):
        assert [problem.reference for problem in read(tmp_path, name)] == ["5", "6", "7", "8", None, None]
    with (tmp_path / "p.jsonl").open("a") as file:
        file.write('{"prompt": "g", "answer": 1e400}\n{"prompt": "h", "answer": Infinity}\n')
    assert [problem.reference for problem in read(tmp_path, "p.jsonl")[-2:]] == [None, None]


def test_prompts_with_different_reference_answers_are_found(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "1 + 1?"}]
    rows: list[dict[str, Any]] = [
        {"prompt": "1 + 1?", "answer": "2"},
        {"prompt": chat, "answer": "2"},
        {"prompt": chat, "answer": "3"},
        {"id": "own", "prompt": "1 + 1?", "answer": "4"},
        {"prompt": "1 / 2?", "answer": "\\frac{1}{2}"},
        {"prompt": "1 / 2?", "answer": "0.5"},
        {"prompt": "open?", "answer": "none"},
        {"prompt": "open?", "answer": "7"},
        {"prompt": "letter?", "answer": "A", "grader": "choice"},
        {"prompt": "letter?", "answer": "(A) apple", "grader": "choice"},
        {"prompt": "letter?", "answer": "B", "grader": "choice"},
        {"prompt": "mine?", "answer": "x", "grader": "mine:check"},
        {"prompt": "mine?", "answer": "y", "grader": "mine:check"},
        *({"prompt": "many?", "answer": "9" + "0" * zeros + "/1" + "0" * zeros} for zeros in range(30)),
    ]
    write_rows(tmp_path / "p.jsonl", rows)
    repeats = Repeats()
    problems = list(iter_problems("p.jsonl", folder=tmp_path, seed=0, limit=None, repeats=repeats))
    assert len(problems) == 6
    conflicts = {
        problem.prompt: conflict
        for problem in problems
        if (conflict := repeats.conflicts(problems, "math").get(prompt_key(problem)))
    }
    # Thirty notations of one prompt are more than are compared.
    assert set(conflicts) == {"1 + 1?", "letter?", "many?"}
    assert conflicts["1 + 1?"] == Conflict(f"{tmp_path / 'p.jsonl'}:3", "2", "3")
    assert conflicts["letter?"] == Conflict(f"{tmp_path / 'p.jsonl'}:11", "A", "B")


def test_a_problem_set_is_read_by_its_content(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import feather, parquet

    table = pyarrow.table({"prompt": ["1 + 1?", "2 + 2?"], "answer": ["2", "4"], "text": [b"abc", b"d"]})
    parquet.write_table(table, tmp_path / "parquet.jsonl")
    feather.write_feather(table, tmp_path / "feather.arrow", compression="uncompressed")
    rows = [json.dumps({"prompt": "1 + 1?", "answer": "2"}), json.dumps({"prompt": "2 + 2?", "answer": "4"})]
    (tmp_path / "lines.parquet").write_text("\n".join(rows))
    (tmp_path / "lines.csv").write_text("\n".join(rows))
    (tmp_path / "semicolons.csv").write_text("prompt;answer\n1 + 1?;2\n2 + 2?;4\n")
    for path in sorted(tmp_path.iterdir()):
        problems = list(iter_problems(path.name, folder=tmp_path, seed=0, limit=None))
        assert [(problem.prompt, problem.answer) for problem in problems] == [("1 + 1?", "2"), ("2 + 2?", "4")], path


def test_a_binary_column_is_refused_and_dates_become_text(tmp_path: Path) -> None:
    from datetime import date

    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"prompt": ["p"], "day": [date(2026, 1, 31)]}), tmp_path / "day.parquet")
    (problem,) = iter_problems("day.parquet", folder=tmp_path, seed=0, limit=None)
    assert json.loads(problem.json_line())["day"] == "2026-01-31"
    parquet.write_table(pyarrow.table({"prompt": ["p"], "image": [b"\x89PNG\xff"]}), tmp_path / "image.parquet")
    with pytest.raises(DataError, match=r"image.parquet: row 1: the column 'image' is binary \(bytes\)"):
        list(iter_problems("image.parquet", folder=tmp_path, seed=0, limit=None))
