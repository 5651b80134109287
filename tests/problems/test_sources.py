"""Problem sets by name: published files as they are, and every row that is no problem."""

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
from spotcli.problems.seen import Seen
from spotcli.problems.sources import iter_problems
from spotcli.records import Problem
from tests.conftest import write_rows

WRAPPED = "Solve this.\n\n{}\n\nEnd with a line that begins with Answer:"

# As verl publishes its sets.
VERL = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
        ("extra_info", pa.struct([("index", pa.string())])),
    ]
)


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
    # The references are those of the files' first rows, read by eye:
    # "... 72 clips altogether in April and May.\n#### 72", "solution": "80", answer 27.0, "... \boxed{1.6} \mathrm",
    # final_answer ["2"].
    [
        ("dapo_math_en_1k", 1000, "80", "'solution' as 'answer'"),
        ("gsm8k_train_1k", 1000, "72", "'answer, behind ####' as 'answer', 'question' as 'prompt'"),
        ("gsm8k_test", 1319, "18", "'answer, behind ####' as 'answer', 'question' as 'prompt'"),
        ("math500", 500, r"\left( 3, \frac{\pi}{2} \right)", "'problem' as 'prompt'"),
        ("aime24", 30, "204", "'question' as 'prompt'"),
        ("aime25", 30, "70", "'problem' as 'prompt'"),
        ("amc23", 40, "27", "'question' as 'prompt'"),
        ("minerva", 272, "1.6", "'solution, its final answer' as 'answer', 'problem' as 'prompt'"),
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
    assert capsys.readouterr().err == f"{name}.jsonl: reading {renamed}\n"
    # A reference that the grader does not take for itself would make every answer undecided.
    references = [problem.answer or "" for problem in problems]
    grades = grade_many([(f"\\boxed{{{reference}}}", reference) for reference in references])
    assert Counter(grade.verdict for grade in grades) == {"right": number}


def test_numbers_are_references_as_one_writes_them(shared: Path) -> None:
    # The file has floats: 27.0, 36.0, 45.0, 3159.0 ...
    assert [problem.answer for problem in read(shared, "amc23.jsonl", 4)] == ["27", "36", "45", "3159"]
    # and row ids that are numbers, of which 0 is one.
    assert [problem.id for problem in read(shared, "amc23.jsonl", 3)] == ["0", "1", "2"]


def test_a_verl_set_is_read_as_published_and_asked_once(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (shared / "dapo_math_en_1k.jsonl").read_text("utf-8").splitlines()]
    published = [verl_row(row["prompt"], row["solution"], at) for at, row in enumerate(rows)]
    write_parquet(tmp_path / "dapo.parquet", published * 3, VERL)
    problems = read(tmp_path, "dapo.parquet")
    assert len(problems) == 1000
    assert problems[0].prompt == [{"role": "user", "content": WRAPPED.format(rows[0]["prompt"])}]
    assert [problem.answer for problem in problems] == [row["solution"] for row in rows]
    assert problems[7].source == "dapo.parquet#8"
    assert problems[7].model_dump()["extra_info"] == {"index": "00000007"}
    said = capsys.readouterr().err
    assert said == (
        "dapo.parquet: reading 'reward_model.ground_truth' as 'answer'\n"
        # 3 x 1000 rows of 1000 prompts.
        "2000 problems whose prompt was there already are left out; 1000 remain\n"
    )


def test_messages_may_have_fields_that_only_some_have(tmp_path: Path) -> None:
    first = [{"role": "system", "content": "Be brief.", "name": "house"}, {"role": "user", "content": "1 + 1?"}]
    write_parquet(tmp_path / "p.parquet", [{"prompt": first, "answer": "2"}])
    assert read(tmp_path, "p.parquet")[0].prompt == first


def test_a_solution_that_ends_without_an_answer_is_no_reference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof = (
        "Suppose that it were rational. Then p and q would both be even.\nThis contradicts that they have no factor."
    )
    rows = [
        {"problem": "Prove it.", "solution": proof},
        {"problem": "1 + 1?", "solution": "One and one are $\\boxed{2}$."},
        {"problem": "1 + 2?", "answer": None, "solution": "3"},
    ]
    write_rows(tmp_path / "p.jsonl", rows)
    problems = read(tmp_path, "p.jsonl")
    assert [problem.answer for problem in problems] == [None, "2", "3"]
    assert problems[0].model_dump()["solution"] == proof
    assert "1 problems have no reference answer, so what is answered to them stays undecided" in capsys.readouterr().err


def test_data_frames_write_nan_where_there_is_nothing(tmp_path: Path) -> None:
    rows = [
        {"id": 1.0, "prompt": "a", "answer": float("nan"), "ground_truth": 0.5},
        {"id": float("nan"), "prompt": "b", "answer": 1e20, "ground_truth": float("nan")},
    ]
    write_parquet(tmp_path / "p.parquet", rows)
    first, second = read(tmp_path, "p.parquet")
    assert (first.id, first.answer) == ("1", "0.5")
    assert second.answer == "100000000000000000000"
    assert len(second.id) == 16


def test_csv_cells_are_text_and_may_hold_commas_quotes_and_lines(tmp_path: Path) -> None:
    text = '\ufeffid,question,answer,level\nx,"Is ""1,000""\nmore, or\nless?",0012,3\n\n,b,,4\n'
    (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    first, second = read(tmp_path, "p.csv")
    assert first.model_dump(exclude_unset=True) == {
        "id": "x", "prompt": 'Is "1,000"\nmore, or\nless?', "answer": "0012", "level": "3", "source": "p.csv#1",
    }  # fmt: skip
    assert (second.answer, len(second.id)) == (None, 16)


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_problems(tmp_path: Path, ending: str) -> None:
    rows = [{"id": f"p{at}", "prompt": f"{at} + 1?", "answer": str(at + 1)} for at in range(3000)]
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
    """A folder whose data sets are cached in it, as the hub's are in the home folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path


def test_a_folder_of_data_files_is_read_as_the_hub_has_it(cached: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cached / "set").mkdir()
    for split in ("train", "test"):
        rows = [{"question": f"{split} {at}?", "answer": f"So it is\n#### {at}"} for at in (5, 6)]
        write_rows(cached / "set" / f"{split}.jsonl", rows)
    assert [(one.prompt, one.answer) for one in read(cached, "hf:set")] == [("train 5?", "5"), ("train 6?", "6")]
    test = read(cached, "hf:set:default:test")
    assert [one.model_dump() for one in test] == [
        one.model_dump() | {"source": one.source.replace("::", ":default:")} for one in read(cached, "hf:set::test")
    ]
    assert test[1].source == "hf:set:default:test#2"
    assert "hf:set: reading 'answer, behind ####' as 'answer', 'question' as 'prompt'" in capsys.readouterr().err
    said = refused(cached, "hf:set::valid")
    assert "Unknown split \"valid\". Should be one of ['train', 'test']" in said
    assert "BuilderConfig 'other' not found" in refused(cached, "hf:set:other")
    assert "cure: hf:set reads a folder" in refused(cached, "set").replace(str(cached) + "/", "")


def test_a_data_set_without_a_train_split_is_taken_if_it_has_one_split(cached: Path) -> None:
    (cached / "set").mkdir()
    write_rows(cached / "set" / "test.jsonl", [{"problem": "a", "answer": "1"}])
    assert len(read(cached, "hf:set")) == 1
    write_rows(cached / "set" / "validation.jsonl", [{"problem": "b", "answer": "1"}])
    said = refused(cached, "hf:set")
    assert "it has the splits validation, test" in said
    assert "::validation, or another" in said


def test_the_parts_of_a_hub_name_are_config_and_split(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def load_dataset(path: str, config: str | None, *, split: str | None) -> Any:
        calls.append((path, config, split))
        rows = [verl_row("1 + 1?", "2", 0), verl_row("1 + 1?", "2", 0), verl_row("2 + 2?", "4", 1)]
        found = datasets.Dataset.from_list(rows)
        return found if split else datasets.DatasetDict({"train": found})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    names = ["hf:org/name", "hf:org/name:main", "hf:org/name:main:test", "hf:org/name::test"]
    for name in names:
        problems = read(tmp_path, name)
        assert [(one.answer, one.source) for one in problems] == [("2", f"{name}#1"), ("4", f"{name}#3")]
        assert problems[0].messages[0]["content"] == WRAPPED.format("1 + 1?")
    assert calls == [
        ("org/name", None, None),
        ("org/name", "main", None),
        ("org/name", "main", "test"),
        ("org/name", None, "test"),
    ]


def test_a_data_set_out_of_reach_is_one_message_with_the_cure(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    said = refused(cached, "hf:nobody/has-this")
    assert said.startswith("hf:nobody/has-this: the data set cannot be loaded: Couldn't reach 'nobody/has-this'")
    assert "cure: hf:NAME" in said


# Rows that are no problems


def test_a_prompt_is_asked_once_and_an_id_names_one_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "1", "prompt": "a", "answer": "1"}
    write_rows(tmp_path / "p.jsonl", [row, row, row | {"id": "2"}, row | {"id": "3", "prompt": "b"}])
    assert [problem.id for problem in read(tmp_path, "p.jsonl")] == ["1", "3"]
    assert "2 problems whose prompt was there already are left out; 2 remain" in capsys.readouterr().err
    assert len(read(tmp_path, "p.jsonl", quiet=True)) == 2
    assert capsys.readouterr().err == ""

    write_rows(tmp_path / "p.jsonl", [row, row | {"prompt": "b"}])
    with pytest.raises(DataError, match=r"p\.jsonl:2: an earlier row has the id '1' too, and another prompt"):
        read(tmp_path, "p.jsonl")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "1"}, "the field 'prompt' is missing"),
        ({"prompt": ""}, "the field 'prompt': expected a non-empty value"),
        ({"prompt": [{"role": "user"}]}, "the field 'prompt.0.content' is missing"),
        ({"prompt": "a", "answer": True}, "the field 'answer'"),
        ({"prompt": "a", "answer": [1]}, "the field 'answer'"),
        ({"prompt": "a", "choices": ["x", "y"], "answer": 1}, "the answer is the number of a choice"),
        ({"prompt": "a", "id": [1]}, "the field 'id'"),
    ],
)
def test_a_row_that_is_no_problem_stops_with_its_place_and_the_cure(
    tmp_path: Path, row: dict[str, Any], says: str
) -> None:
    write_rows(tmp_path / "p.jsonl", [{"prompt": "fine"}, row])
    with pytest.raises(DataError) as caught:
        read(tmp_path, "p.jsonl")
    assert caught.value.where == f"{tmp_path / 'p.jsonl'}:2"
    assert says in caught.value.message
    assert caught.value.cure


def test_a_parquet_row_that_is_no_problem_has_a_number(tmp_path: Path) -> None:
    write_parquet(tmp_path / "p.parquet", [{"prompt": "fine", "answer": "1"}, {"prompt": None, "answer": "1"}])
    assert f"{tmp_path / 'p.parquet'}: row 2: the field 'prompt'" in refused(tmp_path, "p.parquet")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.csv", b"prompt,answer\na,1\nb\n", "p.csv:3: not CSV in UTF-8 (1 cells, where the head has 2)"),
        ("p.csv", b"prompt,answer\na,1,2\n", "p.csv:2: not CSV in UTF-8 (3 cells, where the head has 2)"),
        ("p.csv", b'prompt,answer\na,"1\n', "p.csv:2: not CSV in UTF-8 (unexpected end of data)"),
        ("p.csv", b"prompt,answer\n\xff,1\n", "not CSV in UTF-8 ('utf-8' codec can't decode byte 0xff"),
        ("p.csv", b"text,answer\na,1\n", "p.csv: row 1: the field 'prompt' is missing"),
        ("p.csv", b"", "p.csv: there is no problem in it"),
        ("p.jsonl", b"\n", "p.jsonl: there is no problem in it"),
        ("p.parquet", b"PAR1 or not", "p.parquet: this is no Parquet file that can be read"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in refused(tmp_path, name)


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.csv", "nowhere.parquet"])
def test_a_file_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, name).startswith(f"{tmp_path / name}: file not found\n  cure:")


def test_built_in_sets_are_named_where_there_is_no_such(tmp_path: Path) -> None:
    assert len(read(tmp_path, "builtin:arithmetic")) == 600
    assert len(read(tmp_path, "builtin:arithmetic", 7)) == 7
    assert "cure: there is builtin:arithmetic" in refused(tmp_path, "builtin:algebra")


# Size


def test_hashes_are_kept_in_sixteen_bytes_each_at_most() -> None:
    seen, number = Seen(), 50_000
    # Keys that fall on the same places, and 0, which an empty place holds.
    keys = [
        0,
        *(key * 1024 for key in range(2, number // 2)),
        *(key * 0x9E3779B97F4A7C15 % 2**64 for key in range(9, number)),
    ]
    assert [seen.add(key) for key in keys] == [True] * len(keys)
    assert not any(seen.add(key) for key in keys)
    # Grown by a half when four fifths are taken: 8 / 0.8 = 10 bytes, and 15 after growing.
    assert 10 <= seen._table.itemsize * len(seen._table) / len(keys) <= 15.1


def test_memory_stays_flat_however_long_the_file_is(tmp_path: Path) -> None:
    with parquet.ParquetWriter(tmp_path / "p.parquet", VERL, compression="none") as writer:
        for start in range(0, 10_000, 5000):
            rows = [verl_row(f"{at} {'x' * 4000}", "1", at) for at in range(start, start + 5000)]
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
    # 1024 rows of 4 kB are 4 MB, as Arrow has them and as Python has them; a few batches may be alive at once.
    assert most < 25_000_000
    assert peak < 25_000_000
