"""Datasets as files: reading, appending after crashes, locking, and outputs with their meta files."""

from __future__ import annotations

import errno
import fcntl
import gzip
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotcli import jsonl, outputs
from spotcli.appender import Appender
from spotcli.errors import DataError, SettingsChanged, UserError
from spotcli.outputs import Output
from spotcli.records import Pair, Problem, Sample


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.jsonl"


def write(file: Path, *lines: str | dict[str, Any]) -> Path:
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def problems(number: int) -> list[dict[str, Any]]:
    return [{"id": f"p{index}", "prompt": f"{index} + 1", "answer": str(index + 1)} for index in range(number)]


def output(file: Path, **changes: Any) -> Output:
    arguments: dict[str, Any] = {"command": "spot sample", "settings": {"seed": 0, "model": "m"}}
    return Output(file, **(arguments | changes))


# Reading


def test_rows_are_read_one_by_one(file: Path) -> None:
    write(file, *problems(3))
    rows = jsonl.read(file, Problem)
    assert next(rows).id == "p0"
    assert [row.answer for row in rows] == ["2", "3"]
    assert jsonl.count(file) == 3


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_read(file: Path) -> None:
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n  \n{"prompt": "b"}\r\n   ')
    assert [row.prompt for row in jsonl.read(file, Problem)] == ["a", "b"]
    assert jsonl.count(file) == 2


def test_a_last_row_without_its_line_end_is_a_row(file: Path) -> None:
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}')
    assert [row.prompt for row in jsonl.read(file, Problem)] == ["a", "b"]


def test_line_separators_inside_text_do_not_separate_lines(file: Path) -> None:
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    with Appender(file) as out:
        out.append([Problem(id="a", prompt=text)])
    assert [row.prompt for row in jsonl.read(file, Problem)] == [text]


def test_aliases_of_fields_are_read_and_reported(file: Path) -> None:
    write(file, {"question": "1 + 1", "ground_truth": "2"}, {"problem": "2 + 2", "solution": "4"}, {"prompt": "3 + 3"})
    renamed: dict[str, str] = {}
    rows = list(jsonl.read(file, Problem, renamed=renamed))
    assert [(row.prompt, row.answer) for row in rows] == [("1 + 1", "2"), ("2 + 2", "4"), ("3 + 3", None)]
    assert renamed == {"question": "prompt", "ground_truth": "answer", "problem": "prompt", "solution": "answer"}
    # Aliases are never written.
    assert json.loads(rows[0].json_line()).keys() == {"id", "prompt", "answer"}


def test_the_published_names_of_pairs_are_read(file: Path) -> None:
    write(file, {"question": "1 + 1", "original_answer": "3", "gemini_corrected_answer": "2"})
    (row,) = jsonl.read(file, Pair)
    assert (row.prompt, row.rejected, row.chosen) == ("1 + 1", "3", "2")


def test_an_alias_beside_the_field_is_an_unknown_field(file: Path) -> None:
    write(file, {"prompt": "1 + 1", "question": "Add.", "id": "a"})
    renamed: dict[str, str] = {}
    (row,) = jsonl.read(file, Problem, renamed=renamed)
    assert json.loads(row.json_line()) == {"prompt": "1 + 1", "question": "Add.", "id": "a"}
    assert not renamed


GOOD = '{"prompt": "good"}'
REMOVE = "correct or remove that line"
REQUIRES = "problems require prompt"
CORRECT = "correct the field in that line"
QUOTE = 'write it as text: "7"'
NO_TEXT = "input should be a valid string"
BROKEN = {
    "incomplete": ('{"prompt": "b', "invalid JSON (Unterminated string starting at)", REMOVE),
    "not JSON": ("prompt: b", "invalid JSON (Expecting value)", REMOVE),
    "two rows in a line": ('{"prompt": "b"}{"prompt": "c"}', "invalid JSON (Extra data)", REMOVE),
    "too deep": ("[" * 100_000, "nested more than 200 levels deep", "flatten or remove that line"),
    "an array": ('["b"]', "expected a JSON object, got an array", "write one object per line"),
    "a number": ("7", "expected a JSON object, got a number", "write one object per line"),
    "a missing field": ('{"id": "b"}', "the field 'prompt' is missing", REQUIRES),
    "an empty field": ('{"prompt": ""}', "the field 'prompt': expected a non-empty value", CORRECT),
    "an invalid type": ('{"prompt": "b", "answer": []}', f"the field 'answer': {NO_TEXT}", CORRECT),
    "a number for text": (
        '{"prompt": "b", "answer": 7}',
        f"the field 'answer': {NO_TEXT}",
        'write it as text: "7"',
    ),
    "a field of several types": ('{"prompt": 7}', f"the field 'prompt': {NO_TEXT}", 'write it as text: "7"'),
    "a broken message": ('{"prompt": [{"role": "user"}]}', "the field 'prompt.0.content' is missing", REQUIRES),
}


@pytest.mark.parametrize(("line", "message", "cure"), BROKEN.values(), ids=BROKEN)
def test_an_invalid_line_is_reported_with_its_cure(file: Path, line: str, message: str, cure: str) -> None:
    write(file, GOOD, "", line, GOOD)
    rows = jsonl.read(file, Problem)
    assert next(rows).prompt == "good"
    with pytest.raises(DataError) as caught:
        next(rows)
    assert str(caught.value) == f"{file}:3: {message}\n  cure: {cure}"


def test_an_invalid_choice_is_reported_with_the_valid_ones(file: Path) -> None:
    write(file, {"prompt": "p", "response": "r", "verdict": "correct"})
    with pytest.raises(DataError) as caught:
        list(jsonl.read(file, Sample))
    assert str(caught.value) == (
        f"{file}:1: the field 'verdict': input should be 'right', 'wrong' or 'undecided'\n"
        "  cure: correct the field in that line"
    )


def test_bytes_that_are_not_utf8_are_reported(file: Path) -> None:
    file.write_bytes(b'{"prompt": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=re.escape(f"{file}:1: expected UTF-8, got the byte 0xff")):
        list(jsonl.read(file, Problem))


@pytest.mark.parametrize("tail", [b'{"prompt": "b', b'{"prompt": "b"', b"\0" * 512, b"{" * 100_000])
def test_an_incomplete_last_line_is_reported(file: Path, tail: bytes) -> None:
    file.write_bytes(GOOD.encode() + b"\n" + tail)
    with pytest.raises(DataError) as caught:
        list(jsonl.read(file, Problem))
    assert str(caught.value) == (
        f"{file}:2: the last line is incomplete\n"
        "  cure: run the command that wrote the file again to resume it, or remove that line"
    )


def test_a_duplicate_key_is_reported_with_both_lines(file: Path) -> None:
    write(file, {"id": "a", "prompt": "p"}, {"id": "b", "prompt": "p"}, {"id": "a", "prompt": "q"})
    with pytest.raises(DataError) as caught:
        list(jsonl.read(file, Problem))
    assert str(caught.value) == (
        f"{file}:3: duplicate key 'a' (first in line 1)\n"
        "  cure: give each row a unique id, or omit the ids and remove duplicate prompts"
    )


def test_a_duplicate_prompt_without_ids_is_a_duplicate_key(file: Path) -> None:
    write(file, {"prompt": "p"}, {"prompt": "p"})
    with pytest.raises(DataError, match=re.escape("(first in line 1)")):
        list(jsonl.read(file, Problem))


def test_trials_distinguish_rows_with_the_same_id(file: Path) -> None:
    row = {"id": "a", "prompt": "p", "response": "r", "verdict": "wrong"}
    write(file, row | {"trial": 0}, row | {"trial": 1})
    assert len(list(jsonl.read(file, Sample))) == 2
    write(file, row | {"trial": 1}, row | {"trial": 1})
    with pytest.raises(DataError, match=re.escape("duplicate key ('a', 1) (first in line 1)")):
        list(jsonl.read(file, Sample))


def test_a_missing_file_is_reported_with_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        jsonl.count(tmp_path / "samples.jsonl")
    assert str(caught.value) == (
        f"{tmp_path}/samples.jsonl: file not found\n  cure: create it with `spot sample`, or pass another file"
    )
    with pytest.raises(UserError, match="expected a dataset file, got a folder"):
        jsonl.count(tmp_path)


def test_nan_and_infinity_are_read_as_null(file: Path) -> None:
    write(file, '{"prompt": "p", "id": "a", "score": NaN, "loss": [Infinity, -Infinity, 1.5]}')
    (row,) = jsonl.read(file, Problem)
    assert json.loads(row.json_line()) == {"prompt": "p", "id": "a", "score": None, "loss": [None, None, 1.5]}


TEXT = st.text(alphabet=st.characters(), max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


NAMES = Problem.model_fields.keys() | Problem.aliases.keys()


def without_surrogates(value: Any) -> Any:
    """Replace pairs of surrogates by their character and lone surrogates by U+FFFD."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    return [without_surrogates(item) for item in value] if isinstance(value, list) else value


@given(prompt=TEXT.filter(bool), unknown=st.dictionaries(TEXT, JSON, max_size=3))
@settings(max_examples=60, deadline=None)
def test_rows_are_unchanged_after_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, unknown: dict[str, Any]
) -> None:
    file = tmp_path_factory.mktemp("rows") / "x.jsonl"
    row = unknown | {"id": "a", "prompt": prompt}
    row = {name: value for name, value in row.items() if name in ("id", "prompt") or name not in NAMES}
    with Appender(file) as out:
        out.append([row])
    (once,) = jsonl.read(file, Problem)
    assert json.loads(once.json_line()) == without_surrogates(row)
    # A second round trip changes nothing.
    file.unlink()
    with Appender(file) as out:
        out.append([once])
    (twice,) = jsonl.read(file, Problem)
    assert twice == once


def test_reading_replaces_escaped_lone_surrogates_and_joins_pairs(file: Path) -> None:
    write(file, r'{"id": "a\udc00", "prompt": "\ud83d\ude00 \ud83d \\ud83d", "k\ud800": ["\udfff"]}')
    (row,) = jsonl.read(file, Problem)
    assert json.loads(row.json_line()) == {
        "id": "a\ufffd",
        "prompt": "\U0001f600 \ufffd \\ud83d",
        "k\ufffd": ["\ufffd"],
    }


# Appending


def test_an_incomplete_last_line_is_moved_and_the_rows_before_it_are_kept(file: Path) -> None:
    file.write_bytes(b'{"id": "a"}\n{"id": "b"}\n{"id": "c", "te')
    with Appender(file) as out:
        assert out.torn
        assert [row["id"] for row in out.rows()] == ["a", "b"]
        out.append([{"id": "d"}])
    assert file.read_bytes() == b'{"id": "a"}\n{"id": "b"}\n{"id": "d"}\n'
    assert (file.parent / "x.torn").read_bytes() == b'{"id": "c", "te\n'


def test_a_file_of_one_incomplete_line_becomes_empty(file: Path) -> None:
    file.write_bytes(b'{"id": "' + b"c" * 200_000)
    with Appender(file) as out:
        assert out.torn
        assert list(out.rows()) == []
    assert file.read_bytes() == b""
    assert (file.parent / "x.torn").stat().st_size == 200_009


def test_a_complete_last_row_without_its_line_end_is_kept(file: Path) -> None:
    row = {"id": "b", "text": "x" * 200_000}
    file.write_bytes(b'{"id": "a"}\n' + json.dumps(row).encode())
    with Appender(file) as out:
        assert not out.torn
        out.append([{"id": "c"}])
        assert [row["id"] for row in out.rows()] == ["a", "b", "c"]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072])
def test_an_incomplete_last_line_is_found_across_read_blocks(file: Path, size: int) -> None:
    whole = json.dumps({"id": "a", "text": "x" * size}) + "\n"
    file.write_text(whole + '{"id"' + "y" * size)
    with Appender(file) as out:
        assert out.torn
    assert file.read_text() == whole


def test_a_file_truncated_anywhere_is_repaired_to_its_complete_rows(file: Path) -> None:
    rows = [{"id": f"p{index}", "text": 'a "quoted" \\ line\u2028\n' * index} for index in range(3)]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    ends = list(itertools.accumulate(len(line) for line in data.splitlines(keepends=True)))
    for cut in range(len(data) + 1):
        file.write_bytes(data[:cut])
        with Appender(file) as out:
            # A row is complete with its last brace.
            assert [row["id"] for row in out.rows()] == [
                row["id"] for row, end in zip(rows, ends, strict=True) if cut >= end - 1
            ]


def test_an_invalid_line_in_the_middle_is_reported_with_its_number(file: Path) -> None:
    file.write_text('{"id": "a"}\n{"id": "b\n{"id": "c"}\n')
    with Appender(file) as out, pytest.raises(DataError, match=re.escape(f"{file}:2: invalid JSON")):
        list(out.rows())


def test_nothing_to_append_writes_nothing(file: Path) -> None:
    with Appender(file) as out:
        out.append([])
    assert file.read_bytes() == b""


def test_a_full_disk_leaves_no_incomplete_row(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        monkeypatch.setattr(os, "write", full)
        return real(descriptor, bytes(data)[:10])

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Appender(file) as out:
        out.append([{"id": "a"}])
        monkeypatch.setattr(os, "write", short)
        with pytest.raises(OSError, match="No space left"):
            out.append([{"id": "b", "text": "a long row"}])
        monkeypatch.setattr(os, "write", real)
        out.append([{"id": "c"}])
        assert [row["id"] for row in out.rows()] == ["a", "c"]


WRITER = """
import sys
from pathlib import Path
from spotcli.outputs import Output

file, start = Path(sys.argv[1]), int(sys.argv[2])
with Output(file, command="test", settings={}) as out:
    remaining = [number for number in range(start, start + 5_000) if (f"p{number}", 0) not in out.done]
    while remaining:
        size = 1 + remaining[0] % 3
        batch, remaining = remaining[:size], remaining[size:]
        out.append([{"id": f"p{number}", "text": "x" * (number * 7919 % 30_000)} for number in batch])
        print(f"{batch[-1]}.", flush=True)
"""


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_no_reported_row_and_writes_none_twice(file: Path) -> None:
    r = random.Random(0)
    reported = -1
    for _ in range(20):
        writer = started(WRITER, file, 0)
        assert writer.stdout
        assert writer.stderr
        # The first report shows that the interpreter has started; the kill follows after a random time.
        lines = [writer.stdout.readline()]
        assert lines[0], writer.stderr.read()
        time.sleep(r.uniform(0, 0.05))
        writer.kill()
        lines += writer.stdout.read().splitlines()
        writer.wait()
        writer.stdout.close()
        writer.stderr.close()
        # A kill can truncate the last report, which is then ignored.
        reported = max(reported, *(int(line.strip()[:-1]) for line in lines if line.strip().endswith(".")))
        with Output(file, command="test", settings={}) as out:
            ids = [int(row["id"][1:]) for row in out.rows()]
        assert ids == list(range(len(ids)))
        assert len(ids) > reported
        assert all(len(row["text"]) == int(row["id"][1:]) * 7919 % 30_000 for row in out.rows())
    assert reported > 20


HOLDER = """
import sys
from pathlib import Path
from spotcli.appender import Appender

with Appender(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_one_has_ended(file: Path) -> None:
    write(file, *problems(2))
    before = file.read_bytes()
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout
        assert first.stdout.readline() == "open\n"
        with pytest.raises(UserError) as caught:
            Appender(file)
        assert str(caught.value) == (
            f"{file}: another process is writing this file (process {first.pid})\n"
            "  cure: wait for it, stop it, or write to another file with -o"
        )
        # --fresh is refused too.
        with pytest.raises(UserError, match="another process is writing this file"):
            output(file, fresh=True)
        assert file.read_bytes() == before
        assert len(list(jsonl.read(file, Problem))) == 2  # reading requires no lock
        first.kill()
    with Appender(file) as out:
        out.append([{"id": "p2"}])


def test_a_second_writer_in_the_same_process_is_refused(file: Path) -> None:
    with Appender(file), pytest.raises(UserError, match="another process is writing this file"):
        Appender(file)
    Appender(file).close()


def test_a_file_that_is_replaced_while_it_is_opened_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.flock

    def late(descriptor: int, flags: int) -> None:
        file.unlink()
        file.touch()
        real(descriptor, flags)

    file.touch()
    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(UserError, match="another process is writing this file"):
        Appender(file)


# Output


def test_the_meta_file_records_how_the_rows_were_made(file: Path) -> None:
    with output(file, inputs={"problems": "abc"}) as out:
        out.append(problems(2))
        assert outputs.read_meta(file)["complete"] is False
        out.finish({"right": 1, "wrong": 1})
    meta = outputs.read_meta(file)
    assert outputs.meta_path(file) == file.parent / "x.meta.json"
    assert (meta["command"], meta["settings"], meta["inputs"]) == (
        "spot sample",
        {"seed": 0, "model": "m"},
        {"problems": "abc"},
    )
    assert (meta["complete"], meta["counts"]) == (True, {"right": 1, "wrong": 1})
    assert {"spotcli", "python", "litellm"} <= meta["versions"].keys()


def test_the_same_settings_resume(file: Path) -> None:
    with output(file) as out:
        assert out.done == set()
        out.append(problems(2))
        started = out.meta.started
    with output(file) as out:
        assert out.done == {("p0", 0), ("p1", 0)}
        assert out.meta.started == started
        assert not out.meta.complete
        out.finish({})
    with output(file) as out:
        assert out.meta.complete


def test_notes_and_results_in_the_meta_file_are_kept_on_resume(file: Path) -> None:
    with output(file) as out:
        out.note(engine={"name": "transformers"}, complete=False)
        out.finish({"right": 1})
        written = outputs.read_meta(file)
    assert list(written) == [
        *("command", "settings", "inputs", "versions", "started", "complete", "counts", "engine", "finished"),
    ]
    output(file).close()
    assert outputs.read_meta(file) == written


def test_other_settings_are_refused_and_listed(file: Path) -> None:
    with output(file, inputs={"problems": "abc"}) as out:
        out.append(problems(1))
    with pytest.raises(SettingsChanged) as caught:
        output(file, settings={"seed": 1, "model": "m", "top_p": 0.8}, inputs={"problems": "abd"})
    assert str(caught.value) == (
        f"{file}: this file was made with other settings: seed was 0, now 1; top_p was null, now 0.8; "
        'problems was "abc", now "abd"\n'
        "  cure: start over with --fresh (the old file is renamed), or write to another file with -o"
    )
    assert jsonl.count(file) == 1


def test_settings_with_the_same_json_are_equal(file: Path) -> None:
    output(file, settings={"stop": ("a", "b"), 1: 2}).close()
    output(file, settings={"stop": ["a", "b"], "1": 2}).close()


def test_rows_without_a_meta_file_are_refused(file: Path) -> None:
    write(file, *problems(1))
    with pytest.raises(SettingsChanged, match=r"the file exists, but x\.meta\.json with its settings is missing"):
        output(file)
    file.write_bytes(b"")
    output(file).close()  # an empty file has no rows that could be mixed


def test_a_meta_file_without_its_dataset_is_ignored(file: Path) -> None:
    with output(file) as out:
        out.append(problems(1))
        out.finish({"right": 1})
    file.unlink()
    with output(file, settings={"seed": 1}) as out:
        assert (out.meta.complete, out.meta.counts, out.done) == (False, {}, set())


def test_fresh_renames_the_old_files(file: Path) -> None:
    others = [file.parent / name for name in ("x.v2.jsonl", "x.csv", "xy.jsonl", "x.jsonl.bak")]
    for other in others:
        other.touch()
    for number in range(3):
        with output(file, settings={"seed": number}, fresh=True) as out:
            assert out.done == set()
            out.append([{"id": f"r{number}"}])
        write(file.parent / "x.replies.jsonl", {"reply": number})
    for number in range(2):
        old = file.parent / f"x.old-{number + 1}.jsonl"
        assert json.loads(old.read_text()) == {"id": f"r{number}"}
        assert outputs.read_meta(old)["settings"] == {"seed": number}
        assert json.loads((file.parent / f"x.old-{number + 1}.replies.jsonl").read_text()) == {"reply": number}
    assert json.loads(file.read_text()) == {"id": "r2"}
    assert all(other.exists() for other in others)


def test_fresh_renames_files_with_brackets_in_their_names(tmp_path: Path) -> None:
    file = tmp_path / "x[1]*.jsonl"
    output(file).close()
    output(file, settings={}, fresh=True).close()
    assert (tmp_path / "x[1]*.old-1.jsonl").exists()


def test_fresh_requires_no_old_file(file: Path) -> None:
    output(file, fresh=True).close()
    assert sorted(path.name for path in file.parent.iterdir()) == ["x.jsonl", "x.meta.json"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p"}', "row without a valid key ('id')"),
        ('{"id": []}', "row without a valid key (unhashable type: 'list')"),
        ('{"id": "b', "invalid JSON (Unterminated string starting at)"),
    ],
)
def test_resuming_an_invalid_file_reports_the_line_and_releases_the_lock(file: Path, line: str, message: str) -> None:
    with output(file) as out:
        out.append([{"id": "a"}])
    with file.open("a") as stream:
        stream.write(f'{line}\n{{"id": "c"}}\n')
    with pytest.raises(DataError) as caught:
        output(file)
    assert str(caught.value).startswith(f"{file}:2: {message}\n  cure: correct or remove that line")
    with Appender(file):
        pass


def test_the_file_stays_locked_and_open_when_all_rows_are_replaced(file: Path) -> None:
    with output(file) as out:
        out.append(problems(3))
        out.replace(problems(2))
        with pytest.raises(UserError, match="another process is writing this file"):
            Appender(file)
        out.append([{"id": "p9"}])
        assert [row["id"] for row in out.rows()] == ["p0", "p1", "p9"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["x.jsonl", "x.meta.json"]


def test_a_failed_replacement_keeps_the_old_rows(file: Path) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield {"id": "new"}
        raise RuntimeError("no more")

    with output(file) as out:
        out.append(problems(2))
        with pytest.raises(RuntimeError, match="no more"):
            out.replace(rows())
        out.append([{"id": "p2"}])
        assert [row["id"] for row in out.rows()] == ["p0", "p1", "p2"]


def test_an_invalid_meta_file_is_reported(file: Path) -> None:
    write(file, *problems(1))
    outputs.meta_path(file).write_text("{")
    with pytest.raises(DataError, match=re.escape(f"{file.parent}/x.meta.json: invalid JSON")):
        output(file)


# Other files


def test_json_files_are_written_atomically(tmp_path: Path) -> None:
    file = tmp_path / "meta.json"
    jsonl.write_json(file, {"a": "ü"})
    assert file.read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'
    with pytest.raises(TypeError):
        jsonl.write_json(file, {"a": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "ü"}


def test_the_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    # The example of FIPS 180.
    assert jsonl.digest(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_start_that_failed_before_the_first_row_does_not_bind_the_settings(file: Path) -> None:
    with output(file, settings={"model": "misspelled"}):
        pass
    assert file.exists()
    with output(file, settings={"model": "m"}) as second:
        second.append([{"id": "a"}])
    with pytest.raises(SettingsChanged):
        output(file, settings={"model": "other"})


# --- other people's files ---

ROWS = [{"id": "a", "prompt": "1 + 1?"}, {"id": "b", "prompt": "2 + 2?"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(ROWS).encode(),
        json.dumps(ROWS, indent=2).encode(),
        gzip.compress(LINES.encode()),
        gzip.compress(json.dumps(ROWS).encode()),
        b"\xef\xbb\xbf" + LINES.encode(),
        LINES.replace("\n", "\r\n").encode(),
    ],
    ids=["array", "indented array", "gzip", "gzip array", "byte order mark", "Windows line ends"],
)
def test_other_forms_of_a_dataset_are_read(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    assert [problem.id for problem in jsonl.read(path, Problem)] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", LINES.encode("utf-16"), "expected UTF-8, got UTF-16"),
        ("p.jsonl", gzip.compress(LINES.encode())[:-12], "failed to decompress the file"),
        ("p.jsonl", b'[{"id": "a"}, ', "invalid JSON array"),
        ("p.jsonl", b"[1, 2]", "expected a JSON object, got a number"),
        ("recipe.yaml", b"name: a\n", "got a recipe"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(jsonl.read(path, Problem))
