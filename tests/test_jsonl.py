from __future__ import annotations

import errno
import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spotcli import jsonl, outputs
from spotcli.errors import DataError, SettingsChanged, UserError
from spotcli.jsonl import Appender
from spotcli.outputs import Output
from spotcli.records import Pair, Problem, Sample


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "x.jsonl"


def write(file: Path, *lines: str | dict) -> Path:
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def problems(number: int) -> list[dict]:
    return [{"id": f"p{at}", "prompt": f"{at} + 1", "answer": str(at + 1)} for at in range(number)]


def output(file: Path, **changes) -> Output:
    return Output(file, **({"command": "spot sample", "settings": {"seed": 0, "model": "m"}} | changes))


# Reading


def test_rows_are_streamed(file):
    write(file, *problems(3))
    rows = jsonl.read(file, Problem)
    assert next(rows).id == "p0"
    assert [row.answer for row in rows] == ["2", "3"]
    assert jsonl.count(file) == 3


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_are_read(file):
    file.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\n  \n{"prompt": "b"}\r\n   ')
    assert [row.prompt for row in jsonl.read(file, Problem)] == ["a", "b"]
    assert jsonl.count(file) == 2


def test_a_last_row_without_its_line_end_is_a_row(file):
    file.write_text('{"prompt": "a"}\n{"prompt": "b"}')
    assert [row.prompt for row in jsonl.read(file, Problem)] == ["a", "b"]


def test_line_separators_inside_text_do_not_separate_lines(file):
    text = "a\u2028b\u2029c\x85d\x0be\x1cf"
    with Appender(file) as out:
        out.append([Problem(id="a", prompt=text)])
    assert [row.prompt for row in jsonl.read(file, Problem)] == [text]


def test_other_names_of_fields_are_read_and_reported(file):
    write(file, {"question": "1 + 1", "ground_truth": "2"}, {"problem": "2 + 2", "solution": "4"}, {"prompt": "3 + 3"})
    renamed: dict[str, str] = {}
    rows = list(jsonl.read(file, Problem, renamed=renamed))
    assert [(row.prompt, row.answer) for row in rows] == [("1 + 1", "2"), ("2 + 2", "4"), ("3 + 3", None)]
    assert renamed == {"question": "prompt", "ground_truth": "answer", "problem": "prompt", "solution": "answer"}
    # They are never written.
    assert json.loads(rows[0].json_line()).keys() == {"id", "prompt", "answer"}


def test_the_published_names_of_pairs_are_read(file):
    write(file, {"question": "1 + 1", "original_answer": "3", "gemini_corrected_answer": "2"})
    (row,) = jsonl.read(file, Pair)
    assert (row.prompt, row.rejected, row.chosen) == ("1 + 1", "3", "2")


def test_another_name_beside_ours_is_an_unknown_field(file):
    write(file, {"prompt": "1 + 1", "question": "Add.", "id": "a"})
    renamed: dict[str, str] = {}
    (row,) = jsonl.read(file, Problem, renamed=renamed)
    assert json.loads(row.json_line()) == {"prompt": "1 + 1", "question": "Add.", "id": "a"}
    assert not renamed


GOOD = '{"prompt": "good"}'
MEND = "mend or remove that line"
NEEDS = "a problem needs the fields prompt"
CORRECT = "correct the field in that line"
NO_TEXT = "input should be a valid string"
BROKEN = {
    "cut in the middle": ('{"prompt": "b', "not a line of JSON (Unterminated string starting at)", MEND),
    "no JSON": ("prompt: b", "not a line of JSON (Expecting value)", MEND),
    "two rows in a line": ('{"prompt": "b"}{"prompt": "c"}', "not a line of JSON (Extra data)", MEND),
    "too deep": ("[" * 100_000, "not a line of JSON (RecursionError)", MEND),
    "no object": ('["b"]', "a JSON list, not an object", "one object a line"),
    "a number": ("7", "a JSON int, not an object", "one object a line"),
    "a missing field": ('{"id": "b"}', "the field 'prompt' is missing", NEEDS),
    "an empty field": ('{"prompt": ""}', "the field 'prompt': it is empty", CORRECT),
    "a wrong type": ('{"prompt": "b", "answer": []}', f"the field 'answer': {NO_TEXT}", CORRECT),
    "a number for text": ('{"prompt": "b", "answer": 7}', f"the field 'answer': {NO_TEXT}", 'write it as text: "7"'),
    "a field of several types": ('{"prompt": 7}', f"the field 'prompt': {NO_TEXT}", 'write it as text: "7"'),
    "a broken message": ('{"prompt": [{"role": "user"}]}', "the field 'prompt.0.content' is missing", NEEDS),
}


@pytest.mark.parametrize(("line", "message", "cure"), BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named_with_its_cure(file, line, message, cure):
    write(file, GOOD, "", line, GOOD)
    rows = jsonl.read(file, Problem)
    assert next(rows).prompt == "good"
    with pytest.raises(DataError) as caught:
        next(rows)
    assert str(caught.value) == f"{file}:3: {message}\n  cure: {cure}"


def test_a_wrong_word_is_named_with_those_that_are_right(file):
    write(file, {"prompt": "p", "response": "r", "verdict": "correct"})
    with pytest.raises(DataError) as caught:
        list(jsonl.read(file, Sample))
    assert str(caught.value) == (
        f"{file}:1: the field 'verdict': input should be 'right', 'wrong' or 'undecided'\n"
        "  cure: correct the field in that line"
    )


def test_bytes_that_are_not_utf8_are_named(file):
    file.write_bytes(b'{"prompt": "\xff\xfe"}\n')
    with pytest.raises(DataError, match=re.escape(f"{file}:1: not a line of JSON (UnicodeDecodeError)")):
        list(jsonl.read(file, Problem))


@pytest.mark.parametrize("tail", [b'{"prompt": "b', b'{"prompt": "b"', b"\0" * 512, b"{" * 100_000])
def test_a_torn_last_line_is_named_and_not_read(file, tail):
    file.write_bytes(GOOD.encode() + b"\n" + tail)
    with pytest.raises(DataError) as caught:
        list(jsonl.read(file, Problem))
    assert str(caught.value) == (
        f"{file}:2: the last line is cut off in the middle\n"
        "  cure: run the command that wrote the file again (it resumes), or remove that line"
    )


def test_a_key_that_is_there_twice_is_named_with_both_lines(file):
    write(file, {"id": "a", "prompt": "p"}, {"id": "b", "prompt": "p"}, {"id": "a", "prompt": "q"})
    with pytest.raises(DataError) as caught:
        list(jsonl.read(file, Problem))
    assert str(caught.value) == (
        f"{file}:3: the key 'a' stands in line 1 already\n"
        "  cure: give each row an id of its own, or leave the ids out and remove the repeated prompts"
    )


def test_a_prompt_that_is_there_twice_without_ids_is_the_same_row(file):
    write(file, {"prompt": "p"}, {"prompt": "p"})
    with pytest.raises(DataError, match="stands in line 1 already"):
        list(jsonl.read(file, Problem))


def test_one_id_with_several_trials_is_several_rows(file):
    row = {"id": "a", "prompt": "p", "response": "r", "verdict": "wrong"}
    write(file, row | {"trial": 0}, row | {"trial": 1})
    assert len(list(jsonl.read(file, Sample))) == 2
    write(file, row | {"trial": 1}, row | {"trial": 1})
    with pytest.raises(DataError, match=re.escape("the key ('a', 1) stands in line 1 already")):
        list(jsonl.read(file, Sample))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError) as caught:
        jsonl.count(tmp_path / "samples.jsonl")
    assert str(caught.value) == (
        f"{tmp_path}/samples.jsonl: there is no such file\n  cure: make it with `spot sample`, or name another file"
    )
    with pytest.raises(UserError, match="this is a folder, not a dataset file"):
        jsonl.count(tmp_path)


def test_numbers_that_json_does_not_know_are_read_as_nothing(file):
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


def without_surrogates(value):
    """Pairs of surrogates are one character, lone ones become U+FFFD."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    if isinstance(value, dict):
        return {without_surrogates(name): without_surrogates(item) for name, item in value.items()}
    return [without_surrogates(item) for item in value] if isinstance(value, list) else value


@given(prompt=TEXT.filter(bool), unknown=st.dictionaries(TEXT, JSON, max_size=3))
@settings(max_examples=60, deadline=None)
def test_rows_survive_the_file(tmp_path_factory, prompt, unknown):
    file = tmp_path_factory.mktemp("rows") / "x.jsonl"
    row = unknown | {"id": "a", "prompt": prompt}
    row = {name: value for name, value in row.items() if name in ("id", "prompt") or name not in NAMES}
    with Appender(file) as out:
        out.append([row])
    (once,) = jsonl.read(file, Problem)
    assert json.loads(once.json_line()) == without_surrogates(row)
    # From then on nothing changes any more.
    file.unlink()
    with Appender(file) as out:
        out.append([once])
    (twice,) = jsonl.read(file, Problem)
    assert twice == once


def test_escaped_lone_surrogates_are_replaced_on_reading_and_pairs_are_characters(file):
    write(file, r'{"id": "a\udc00", "prompt": "\ud83d\ude00 \ud83d \\ud83d", "k\ud800": ["\udfff"]}')
    (row,) = jsonl.read(file, Problem)
    assert json.loads(row.json_line()) == {
        "id": "a\ufffd",
        "prompt": "\U0001f600 \ufffd \\ud83d",
        "k\ufffd": ["\ufffd"],
    }


# Appending


def test_a_torn_tail_is_set_aside_and_the_rows_before_it_stay(file):
    file.write_bytes(b'{"id": "a"}\n{"id": "b"}\n{"id": "c", "te')
    with Appender(file) as out:
        assert out.torn
        assert [row["id"] for row in out.rows()] == ["a", "b"]
        out.append([{"id": "d"}])
    assert file.read_bytes() == b'{"id": "a"}\n{"id": "b"}\n{"id": "d"}\n'
    assert (file.parent / "x.torn").read_bytes() == b'{"id": "c", "te\n'


def test_a_file_that_is_nothing_but_a_torn_line_starts_empty(file):
    file.write_bytes(b'{"id": "' + b"c" * 200_000)
    with Appender(file) as out:
        assert out.torn
        assert list(out.rows()) == []
    assert file.read_bytes() == b""
    assert (file.parent / "x.torn").stat().st_size == 200_009


def test_a_whole_last_row_without_its_line_end_is_kept(file):
    row = {"id": "b", "text": "x" * 200_000}
    file.write_bytes(b'{"id": "a"}\n' + json.dumps(row).encode())
    with Appender(file) as out:
        assert not out.torn
        out.append([{"id": "c"}])
        assert [row["id"] for row in out.rows()] == ["a", "b", "c"]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 131_072])
def test_tails_are_found_across_the_blocks_that_are_read(file, size):
    whole = json.dumps({"id": "a", "text": "x" * size}) + "\n"
    file.write_text(whole + '{"id"' + "y" * size)
    with Appender(file) as out:
        assert out.torn
    assert file.read_text() == whole


def test_every_cut_of_a_file_is_repaired_to_its_whole_rows(file):
    rows = [{"id": f"p{at}", "text": 'a "quoted" \\ line\u2028\n' * at} for at in range(3)]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    ends = list(itertools.accumulate(len(line) for line in data.splitlines(keepends=True)))
    for cut in range(len(data) + 1):
        file.write_bytes(data[:cut])
        with Appender(file) as out:
            # A row is whole once its last brace is there.
            assert [row["id"] for row in out.rows()] == [
                row["id"] for row, end in zip(rows, ends, strict=True) if cut >= end - 1
            ]


def test_a_broken_middle_line_stops_with_its_number(file):
    file.write_text('{"id": "a"}\n{"id": "b\n{"id": "c"}\n')
    with Appender(file) as out, pytest.raises(DataError, match=re.escape(f"{file}:2: not a line of JSON")):
        list(out.rows())


def test_nothing_to_append_writes_nothing(file):
    with Appender(file) as out:
        out.append([])
    assert file.read_bytes() == b""


def test_a_full_disk_leaves_no_half_row(file, monkeypatch):
    real = os.write

    def short(descriptor, data):
        monkeypatch.setattr(os, "write", full)
        return real(descriptor, bytes(data)[:10])

    def full(descriptor, data):
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
    left = [at for at in range(start, start + 5_000) if (f"p{at}", 0) not in out.done]
    while left:
        batch, left = left[: 1 + left[0] % 3], left[1 + left[0] % 3 :]
        out.append([{"id": f"p{at}", "text": "x" * (at * 7919 % 30_000)} for at in batch])
        print(f"{batch[-1]}.", flush=True)
"""


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_writer_loses_no_row_that_was_reported_and_repeats_none(file):
    r = random.Random(0)
    reported = -1
    for _ in range(20):
        writer = started(WRITER, file, 0)
        # The first report comes when the interpreter is up; the kill comes at a random moment after it.
        lines = [writer.stdout.readline()]
        assert lines[0], writer.stderr.read()
        time.sleep(r.uniform(0, 0.05))
        writer.kill()
        lines += writer.stdout.read().splitlines()
        writer.wait()
        writer.stdout.close()
        writer.stderr.close()
        # A kill can cut the last report, which then counts for nothing.
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
from spotcli.jsonl import Appender

with Appender(Path(sys.argv[1])):
    print("open", flush=True)
    sys.stdin.read()
"""


def test_a_second_writer_is_refused_until_the_first_one_is_gone(file):
    write(file, *problems(2))
    before = file.read_bytes()
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "open\n"
        with pytest.raises(UserError) as caught:
            Appender(file)
        assert str(caught.value) == (
            f"{file}: another process is writing this file\n"
            "  cure: wait for it, stop it, or choose another output with -o"
        )
        # Neither does --fresh take the file from under the first one.
        with pytest.raises(UserError, match="another process is writing this file"):
            output(file, fresh=True)
        assert file.read_bytes() == before
        assert len(list(jsonl.read(file, Problem))) == 2  # reading needs no lock
        first.kill()
    with Appender(file) as out:
        out.append([{"id": "p2"}])


def test_a_second_writer_in_the_same_process_is_refused(file):
    with Appender(file), pytest.raises(UserError, match="another process is writing this file"):
        Appender(file)
    Appender(file).close()


def test_a_file_that_was_exchanged_while_it_was_opened_is_refused(file, monkeypatch):
    real = jsonl.fcntl.flock

    def late(descriptor, flags):
        file.unlink()
        file.touch()
        real(descriptor, flags)

    file.touch()
    monkeypatch.setattr(jsonl.fcntl, "flock", late)
    with pytest.raises(UserError, match="another process is writing this file"):
        Appender(file)


# Output


def test_the_meta_file_says_how_the_rows_were_made(file):
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


def test_the_same_settings_resume(file):
    with output(file) as out:
        assert out.done == set()
        out.append(problems(2))
        started = out.meta["started"]
    with output(file) as out:
        assert out.done == {("p0", 0), ("p1", 0)}
        assert out.meta["started"] == started
        assert not out.meta["complete"]
        out.finish({})
    with output(file) as out:
        assert out.meta["complete"]


def test_other_settings_are_refused_and_named(file):
    with output(file, inputs={"problems": "abc"}) as out:
        out.append(problems(1))
    with pytest.raises(SettingsChanged) as caught:
        output(file, settings={"seed": 1, "model": "m", "top_p": 0.8}, inputs={"problems": "abd"})
    assert str(caught.value) == (
        f"{file}: this file was made with other settings: seed was 0, now 1; top_p was null, now 0.8; "
        'problems was "abc", now "abd"\n'
        "  cure: --fresh starts anew (the old file is kept aside), -o writes elsewhere"
    )
    assert jsonl.count(file) == 1


def test_settings_that_only_differ_in_their_types_are_the_same(file):
    output(file, settings={"stop": ("a", "b"), 1: 2}).close()
    output(file, settings={"stop": ["a", "b"], "1": 2}).close()


def test_rows_that_nobody_knows_the_settings_of_are_refused(file):
    write(file, *problems(1))
    with pytest.raises(SettingsChanged, match=r"the file exists, and x\.meta\.json does not say how it was made"):
        output(file)
    file.write_bytes(b"")
    output(file).close()  # an empty file holds nothing that could be mixed


def test_a_meta_file_without_its_rows_counts_for_nothing(file):
    with output(file) as out:
        out.append(problems(1))
        out.finish({"right": 1})
    file.unlink()
    with output(file, settings={"seed": 1}) as out:
        assert (out.meta["complete"], out.meta["counts"], out.done) == (False, {}, set())


def test_fresh_keeps_the_old_files_aside(file):
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


def test_fresh_keeps_files_with_brackets_in_their_names_aside(tmp_path):
    file = tmp_path / "x[1]*.jsonl"
    output(file).close()
    output(file, settings={}, fresh=True).close()
    assert (tmp_path / "x[1]*.old-1.jsonl").exists()


def test_fresh_needs_no_old_file(file):
    output(file, fresh=True).close()
    assert sorted(path.name for path in file.parent.iterdir()) == ["x.jsonl", "x.meta.json"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p"}', "a row without a usable key ('id')"),
        ('{"id": []}', "a row without a usable key (unhashable type: 'list')"),
        ('{"id": "b', "not a line of JSON (Unterminated string starting at)"),
    ],
)
def test_resuming_a_broken_file_names_the_line_and_lets_go_of_it(file, line, message):
    with output(file) as out:
        out.append([{"id": "a"}])
    with file.open("a") as more:
        more.write(f'{line}\n{{"id": "c"}}\n')
    with pytest.raises(DataError) as caught:
        output(file)
    assert str(caught.value).startswith(f"{file}:2: {message}\n  cure: mend or remove that line")
    with Appender(file):
        pass


def test_replacing_all_rows_keeps_the_file_locked_and_open(file):
    with output(file) as out:
        out.append(problems(3))
        out.replace(problems(2))
        with pytest.raises(UserError, match="another process is writing this file"):
            Appender(file)
        out.append([{"id": "p9"}])
        assert [row["id"] for row in out.rows()] == ["p0", "p1", "p9"]
    assert sorted(path.name for path in file.parent.iterdir()) == ["x.jsonl", "x.meta.json"]


def test_a_replacement_that_fails_leaves_the_old_rows(file):
    def rows():
        yield {"id": "new"}
        raise RuntimeError("no more")

    with output(file) as out:
        out.append(problems(2))
        with pytest.raises(RuntimeError, match="no more"):
            out.replace(rows())
        out.append([{"id": "p2"}])
        assert [row["id"] for row in out.rows()] == ["p0", "p1", "p2"]


def test_a_broken_meta_file_is_named(file):
    write(file, *problems(1))
    outputs.meta_path(file).write_text("{")
    with pytest.raises(DataError, match=re.escape(f"{file.parent}/x.meta.json: not a line of JSON")):
        output(file)


# Beside


def test_json_files_are_written_whole_or_not_at_all(tmp_path):
    file = tmp_path / "meta.json"
    jsonl.write_json(file, {"a": "ü"})
    assert file.read_text(encoding="utf-8") == '{\n  "a": "ü"\n}\n'
    with pytest.raises(TypeError):
        jsonl.write_json(file, {"a": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "ü"}


def test_the_digest_is_of_the_bytes(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    # The standard's own example.
    assert jsonl.digest(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
