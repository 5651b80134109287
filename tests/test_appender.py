"""Outputs that another program replaces, deletes or changes, links, and paths that are no files."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from spotcli import files, jsonl, outputs
from spotcli.appender import Appender
from spotcli.errors import DataError, UserError
from spotcli.outputs import Output


def ids(path: Path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text().splitlines()]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_replaced_output_loses_no_row_and_is_reported(tmp_path: Path) -> None:
    path, copy = tmp_path / "x.jsonl", tmp_path / "copy"
    output = Output(path, command="test", settings={})
    output.append([{"id": "a"}])
    copy.write_bytes(path.read_bytes())
    output.append([{"id": "b"}])
    copy.replace(path)
    output.append([{"id": "c"}])
    assert [row["id"] for row in output.rows()] == ["a", "b", "c"]
    with pytest.raises(UserError, match="another program replaced this file") as caught:
        output.finish({"rows": 3})
    output.close()
    kept = tmp_path / "x.replaced-1.jsonl"
    assert str(kept) in str(caught.value.cure)
    assert ids(kept) == ["a", "b", "c"]
    assert ids(path) == ["a"]
    assert not outputs.read_meta(path)["complete"]
    # The cure works.
    kept.replace(path)
    with Output(path, command="test", settings={}, key=lambda row: row["id"]) as output:
        assert output.done == {"a", "b", "c"}


def test_a_replacement_after_the_last_row_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    file = Appender(path)
    file.append([{"id": "a"}])
    (tmp_path / "other").write_text("")
    (tmp_path / "other").replace(path)
    with pytest.raises(UserError, match="another program replaced"):
        file.__exit__(None, None, None)
    assert ids(tmp_path / "x.replaced-1.jsonl") == ["a"]


def test_a_deleted_output_is_written_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.jsonl"
    with Appender(path) as file:
        file.append([{"id": "a"}])
        path.unlink()
        file.append([{"id": "b"}])
    assert ids(path) == ["a", "b"]
    assert "deleted this file" in capsys.readouterr().err


def test_an_output_that_another_program_shortened_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    file = Appender(path)
    file.append([{"id": "a"}])
    os.truncate(path, 0)
    file.append([{"id": "b"}])
    with pytest.raises(UserError, match="another program changed"):
        file.__exit__(None, None, None)
    assert ids(path) == ["b"]


@pytest.mark.parametrize("by", ["rename", "edit in place"])
def test_a_file_that_a_person_edited_meanwhile_is_not_overwritten(tmp_path: Path, by: str) -> None:
    path = tmp_path / "x.jsonl"
    output = Output(path, command="test", settings={})
    output.append([{"id": "a"}])
    edited = path if by == "edit in place" else tmp_path / "edited"
    edited.write_text('{"id": "a", "review": "accept"}\n')
    edited.replace(path)
    with pytest.raises(UserError, match="another program changed this file"):
        output.replace([{"id": "a"}])
    output.close()
    assert "accept" in path.read_text()


@pytest.mark.parametrize("exists", [True, False], ids=["link", "dangling link"])
def test_links_are_followed(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "real.jsonl", tmp_path / "x.jsonl"
    if exists:
        real.write_text("")
    link.symlink_to(real)
    with Output(link, command="test", settings={}) as output:
        output.append([{"id": "a"}])
        with pytest.raises(UserError, match="another process"):
            Appender(real)
        output.replace([{"id": "b"}])
    assert ids(real) == ["b"]
    jsonl.write_rows(link, [{"id": "c"}])
    assert link.is_symlink()
    with Output(link, command="test", settings={}, fresh=True) as output:
        output.append([{"id": "d"}])
    assert link.is_symlink()
    assert ids(real) == ["d"]
    assert ids(tmp_path / "x.old-1.jsonl") == ids(tmp_path / "disk" / "real.old-1.jsonl") == ["c"]


def test_a_link_into_a_missing_folder_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "x.jsonl"
    link.symlink_to(tmp_path / "unmounted" / "x.jsonl")
    with pytest.raises(UserError, match="points into a missing folder"):
        Appender(link)
    assert link.is_symlink()


def test_two_names_of_one_file_have_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    with Appender(path):
        os.link(path, tmp_path / "y.jsonl")
        with pytest.raises(UserError, match="another process is writing"):
            Appender(tmp_path / "y.jsonl")


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "a named pipe": _pipe,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/full"),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_at_once(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = Path("x.jsonl")
    NO_FILES[kind](path)
    for work in (
        lambda: Appender(path),
        lambda: Output(path, command="test", settings={}, fresh=True),
        lambda: jsonl.write_json(path, {}),
        lambda: jsonl.write_rows(path, []),
        lambda: outputs.set_aside(path),
    ):
        with pytest.raises(UserError, match=f"expected a file, got {kind}"):
            work()
    with pytest.raises(UserError, match=rf"got {kind}"):
        jsonl.count(path)
    if kind != "a folder":
        with pytest.raises(UserError, match=f"expected a file, got {kind}"):
            jsonl.read_json(path)
    assert os.path.lexists(path)
    assert [item.name for item in Path().iterdir()] == ["x.jsonl"]


def test_input_from_a_pipe_of_the_shell_is_read() -> None:
    source, sink = os.pipe()
    os.write(sink, b'{"id": "a"}\n')
    os.close(sink)
    assert list(jsonl.rows(Path(f"/proc/self/fd/{source}"))) == [{"id": "a"}]
    os.close(source)


def test_settings_and_journals_are_private_even_if_they_were_not(tmp_path: Path) -> None:
    path, meta, journal = tmp_path / "x.jsonl", tmp_path / "x.meta.json", tmp_path / "x.replies.jsonl"
    for file in (meta, journal):
        file.write_text("{}\n" if file == meta else "")
        file.chmod(0o644)
    journal.write_text('{"torn')
    path.touch(0o640)
    path.chmod(0o640)
    with Output(path, command="test", settings={}) as output, Appender(journal, private=True):
        assert mode(tmp_path / ".x.jsonl.lock") == files.PRIVATE
        output.replace([{"id": "a"}])
    assert mode(meta) == mode(journal) == mode(tmp_path / "x.replies.torn") == files.PRIVATE
    assert mode(path) == 0o640  # the dataset keeps its own


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\xfe", b"[]", b"null", b'{"settings": null}', b'{"settings": []}', b'{"counts": "many"}',
     b'{"counts": []}', b'{"inputs": 3}', b'{"complete": "yes"}', b'{"started": 5}', b'{"engine": []}'],
)  # fmt: skip
def test_a_damaged_meta_file_is_named_and_nothing_is_changed(tmp_path: Path, content: bytes) -> None:
    path, meta = tmp_path / "x.jsonl", tmp_path / "x.meta.json"
    path.write_text('{"id": "a"}\n')
    meta.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Output(path, command="test", settings={})
    assert caught.value.where == str(meta)
    assert "\n" not in caught.value.message
    assert (ids(path), meta.read_bytes()) == (["a"], content)
    # --fresh keeps both under another name.
    Output(path, command="test", settings={}, fresh=True).close()
    assert (tmp_path / "x.old-1.meta.json").read_bytes() == content


def test_an_output_that_is_the_input_is_refused(tmp_path: Path) -> None:
    path, link = tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    path.write_text("{}")
    os.link(path, link)
    with pytest.raises(UserError, match="the output is also the input"):
        files.check_distinct(path, link)
    files.check_distinct(path, tmp_path / "new.jsonl")
