"""Expected numbers are worked out in the comments."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from array import array
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from spotcli.errors import DataError, UserError
from spotcli.recipe import Recipe
from spotcli.stages import review as stage
from spotcli.stages.review import ReviewSummary, histogram, review

RECIPE = Recipe()

PAIRS: list[dict[str, Any]] = [
    {
        "id": "sum-1",
        "prompt": [
            {"role": "user", "content": "1 + 1"},
            {"role": "assistant", "content": "\\boxed{2}"},
            {"role": "user", "content": "3 * 4 + 5"},
        ],
        "answer": "17",
        "source": "arithmetic/train",
        "rejected": "3 * 4 = 13\n13 + 5 = 18",
        "chosen": "3 * 4 = 12\n12 + 5 = 17",
        "change_ratio": 0.3,
        "verdict": "right",
        "oracle": {"name": "symbolic"},
    },
    {
        "id": "word-1",
        "prompt": "Tom has 3 apples and eats one. How many are left?",
        "answer": "2",
        "source": "gsm8k/7",
        "rejected": "Tom has 3 apples left.",
        "chosen": "Tom has 2 apples left.",
        "change_ratio": 0.1,
        "verdict": "right",
        "oracle": {"name": "gpt-4o", "cost": 0.0123},
        "review": "accept",
    },
    {
        "id": "word-2",
        "prompt": "?",
        "rejected": "abc",
        "chosen": "x y z",
        "change_ratio": 0.9,
        "verdict": "wrong",
    },
]

# What a hostile model, data set or provider could write, in every field that is shown.
ATTACKS = {
    "OSC 52": "\x1b]52;c;ZXZpbA==\x07",
    "OSC 8": "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "CSI": "\x1b[2J\x1b[1;1H\x1b[31m",
    "C1": "\x9b31m\x9d0;t\x9c",
    "BiDi": "\u202egnp.exe\u2066",
    "markup": "[bold red]x[/] [link=http://evil]y[/link] [@click=evil]z[/]",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)> ' onclick='x \" onclick=\"y",
    "lines": "a\n== 9/9  forged\r== 9/9  forged",
}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data.jsonl", PAIRS)
    counts = {"samples": 10, "pairs": 3, "dropped": {"wrong correction": 2, "too far": 1}, "cost": 0.5}
    (tmp_path / "data.meta.json").write_text(json.dumps({"counts": counts}))
    return tmp_path / "data.jsonl"


def look(data: Path, **options: Any) -> ReviewSummary:
    return review(RECIPE, folder=data.parent, data=Path(data.name), **options)


def test_the_summary(data: Path) -> None:
    found = look(data, quiet=True)
    assert (found.pairs, found.matching, found.above_gamma, found.unmeasured, found.unchanged) == (3, 3, 1, 0, 0)
    assert (found.ratio_median, found.ratio_max) == (0.3, 0.9)
    assert found.ratio_mean == pytest.approx(1.3 / 3)
    # Shared characters before the first edit: "3 * 4 = 1" 9 of 22, "Tom has " 8 of 22, none of 3.
    assert found.first_edit_median == pytest.approx(8 / 22)
    assert found.first_edits == [1, 0, 0, 1, 1, 0, 0, 0, 0, 0]
    # y+ have 22, 22 and 5 characters.
    assert found.shared_prefix == pytest.approx(17 / 49)
    assert found.verdicts == {"right": 2, "wrong": 1}
    assert found.reviews == {"none": 2, "accept": 1}
    assert found.oracles == {"symbolic": 1, "gpt-4o": 1, "none": 1}
    assert json.loads(json.dumps(found.as_dict()))["counts"]["dropped"]["too far"] == 1


def test_quiet_prints_nothing(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(data, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_the_whole_in_plain_text(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(data)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    overview, first, second, third = text.split("\n== ")
    assert "3 pairs" in overview
    assert "median 0.300  mean 0.433  max 0.900" in overview
    assert "1 pair above gamma 0.6" in overview
    assert re.search(r"dropped: wrong correction +2\n", overview)
    assert re.search(r"0\.90–1\.00 █+ +1\n", overview)
    assert first == (
        "1/3  sum-1\n"
        "  change ratio 0.300   y+ right   oracle symbolic   edits 3 (−3 +3 words)\n"
        "  source arithmetic/train\n"
        "  answer 17\n"
        "  prompt 3 * 4 + 5  (2 turns before)\n"
        "\n"
        "  3 * 4 = [-13-]{+12+}\n"
        "  [-13-]{+12+} + 5 = [-18-]{+17+}\n"
    )
    assert "cost $0.0123   review accept" in second
    assert "  Tom has [-3-]{+2+} apples left.\n" in second
    assert third.startswith("3/3  word-2\n  change ratio 0.900   y+ wrong   edits 1 (−1 +3 words)\n")


def test_long_lines_are_not_broken_in_a_pipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "word " * 100
    look(write(tmp_path / "d.jsonl", [{"prompt": "p", "rejected": f"{long}a\tb", "chosen": f"{long}c\tb"}]))
    assert f"  {long}[-a-]{{+c+}}\tb\n" in capsys.readouterr().out


def test_one_pair_by_its_id(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(data, id="sum-1")
    text = capsys.readouterr().out
    assert (found.pairs, found.matching, found.verdicts) == (3, 1, {"right": 1})
    assert text.startswith("== 1/1  sum-1\n")
    # Alone, a pair shows all turns of its prompt.
    assert "  prompt user 1 + 1\n  assistant \\boxed{2}\n  user 3 * 4 + 5\n" in text


def test_an_id_that_is_not_there(data: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'word-1' or 'word-2'"):
        look(data, id="Word")
    with pytest.raises(UserError, match="--where 'id~PART'"):
        look(data, id="x")
    with pytest.raises(UserError, match="it does not match 'verdict=wrong'"):
        look(data, id="sum-1", where="verdict=wrong")


def test_chosen_pairs(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(data, where="verdict=right, source~gsm8k")
    text = capsys.readouterr().out
    assert (found.pairs, found.matching, found.ratio_median) == (3, 1, 0.1)
    assert "3 pairs, 1 match" in text
    assert "== 1/1  word-1" in text
    assert "sum-1" not in text


def test_no_pair_matches(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(data, where="ratio>0.95")
    assert (found.matching, found.ratio_median, found.histogram, found.first_edit_median) == (0, None, [], None)
    assert "3 pairs, 0 match" in capsys.readouterr().out


def test_a_limit(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(data, limit=1)
    assert re.findall("^== .*", capsys.readouterr().out, re.MULTILINE) == ["== 1/1  sum-1"]
    look(data, limit=0)
    assert "== " not in capsys.readouterr().out


def test_an_empty_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(write(tmp_path / "data.jsonl", []), html=Path("empty.html"))
    assert (found.pairs, found.ratio_mean, found.shared_prefix) == (0, None, None)
    assert "0 pairs" in capsys.readouterr().out
    assert "0 pairs" in (tmp_path / "empty.html").read_text()


def test_samples_are_not_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "samples.jsonl", [{"prompt": "?", "response": "1", "verdict": "wrong"}])
    with pytest.raises(UserError, match="these are samples, not pairs") as caught:
        look(path)
    assert str(caught.value.cure).startswith("spot rectify ")


def test_a_row_that_is_neither(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", [PAIRS[0], {"prompt": "?", "rejected": "1"}])
    with pytest.raises(DataError, match=r"data\.jsonl:2: the field 'chosen' is missing"):
        look(path)
    with pytest.raises(DataError, match=r"data\.jsonl:1: the field 'chosen' is missing"):
        look(write(tmp_path / "data.jsonl", [{"prompt": "?"}]))


def test_other_names_and_no_ratio(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"question": "?", "original_answer": "1 2 3 4", "gemini_corrected_answer": "1 2 3 5"}
    found = look(write(tmp_path / "data.jsonl", [row]))
    captured = capsys.readouterr()
    assert "read 'question' as 'prompt', 'original_answer' as 'rejected'" in captured.err
    # One of four words is new.
    assert (found.ratio_median, found.unmeasured) == (0.25, 1)
    assert "1 ratio measured here, in words and signs" in captured.out
    assert "change ratio 0.250 in words and signs   y+ not graded" in captured.out


def test_a_correction_that_changes_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = look(write(tmp_path / "data.jsonl", [{"prompt": "?", "rejected": "a", "chosen": "a"}]))
    assert (found.unchanged, found.ratio_median, found.first_edits) == (1, 0.0, [0] * 10)
    text = capsys.readouterr().out
    assert "1 pair whose correction changes nothing" in text
    assert text.endswith("\n  a\n\n")


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([0.0, 0.0], [(0.0, 0.01, 2)]),
        ([0.0, 0.029, 0.03], [(0.0, 0.01, 1), (0.01, 0.02, 0), (0.02, 0.03, 1), (0.03, 0.04, 1)]),
        ([0.3], [(0.02 * n, 0.02 * n + 0.02, int(n == 15)) for n in range(16)]),
        ([0.6], [(0.05 * n, 0.05 * n + 0.05, int(n == 12)) for n in range(13)]),
        ([1.0], [(0.1 * n, 0.1 * n + 0.1, int(n == 9)) for n in range(10)]),
        ([], []),
    ],
)
def test_histogram(ratios: list[float], expected: list[tuple[float, float, int]]) -> None:
    found = histogram(array("d", ratios))
    assert [step[2] for step in found] == [step[2] for step in expected]
    assert [step[:2] for step in found] == [pytest.approx(step[:2]) for step in expected]


def hostile(tmp_path: Path, attack: str) -> Path:
    row = {
        "id": f"id {attack}",
        "prompt": f"prompt {attack}",
        "answer": f"answer {attack}",
        "source": f"source {attack}",
        "rejected": f"same {attack} rejected {attack}",
        "chosen": f"same {attack} chosen {attack}!",
        "oracle": {"name": f"oracle {attack}"},
    }
    (tmp_path / "data.meta.json").write_text(json.dumps({"counts": {f"reason {attack}": 1, "text": attack}}))
    return write(tmp_path / "data.jsonl", [row])


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_in_a_pipe_is_obeyed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(hostile(tmp_path, ATTACKS[name]))
    text = capsys.readouterr().out
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]", text)
    # A line that looks like the head of a pair is one: model text never begins a line.
    assert len(re.findall("^==", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_on_a_terminal_is_obeyed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.delenv("NO_COLOR", raising=False)
    look(hostile(tmp_path, ATTACKS[name]))
    text = capsys.readouterr().out
    assert "\x1b[1;32m" in text  # our own green
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]", plain)
    # Colours come from us alone: bold, dim, strike-through, the eight base colours; nothing from the text's markup.
    assert set(re.findall(r"\x1b\[([0-9;]*)m", text)) <= {"0", "1", "2", "9;31", "1;32", "31", "32", "33", "34", "36"}
    if name == "markup":
        assert "[bold red]x[/] [link=http://evil]y[/link] [@click=evil]z[/]" in plain


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_on_a_page_is_obeyed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(hostile(tmp_path, ATTACKS[name]), html=Path("page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    parser = _Tags()
    parser.feed(page)
    assert not parser.tags & {"script", "img", "iframe", "link", "object", "embed", "base", "form"}
    assert not any(attribute.startswith("on") or attribute == "src" for attribute in parser.attributes)
    assert "default-src 'none'" in page
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f]", page)
    assert "written: " in capsys.readouterr().out


def test_a_page(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    look(data, html=Path("page.html"))
    captured = capsys.readouterr()
    page = (data.parent / "page.html").read_text(encoding="utf-8")
    assert page.count("<article") == 3
    assert "Tom has </span><del>3</del><ins>2</ins> apples left." in page
    assert "<tr><td>dropped: wrong correction</td><td>2</td></tr>" in page
    assert "== " not in captured.out
    assert [file.name for file in data.parent.glob(".page*")] == []
    # The same page again, with the chosen pairs only.
    look(data, html=Path("page.html"), where="verdict=wrong")
    assert (data.parent / "page.html").read_text(encoding="utf-8").count("<article") == 1


def test_a_page_of_many_pairs_is_cut_and_says_so(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "HTML_LIMIT", 2)
    look(data, html=Path("page.html"))
    assert "the first 2 of 3 pairs; --limit sets how many" in capsys.readouterr().err
    assert (data.parent / "page.html").read_text(encoding="utf-8").count("<article") == 2
    look(data, html=Path("page.html"), limit=3)
    assert (data.parent / "page.html").read_text(encoding="utf-8").count("<article") == 3


def test_a_page_that_cannot_be_written(data: Path) -> None:
    with pytest.raises(UserError, match="can't write the page"):
        look(data, html=Path("no/such/folder/page.html"))


LAUNCH = """
import sys
from pathlib import Path
from spotcli.recipe import Recipe
from spotcli.stages.review import review
review(Recipe(), data=Path(sys.argv[1]))
"""


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    rows = [{**PAIRS[1], "id": str(number)} for number in range(3000)]
    path = write(tmp_path / "data.jsonl", rows)
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(timeout=60) == 0
    assert errors == b""


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, path: Path, *, columns: int = 80, lines: int = 12) -> None:
        import fcntl
        import struct
        import termios

        self.master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        hidden = ("NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(path)],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**environment, "TERM": "xterm-256color"},
            start_new_session=True,
        )

    def until(self, text: str) -> str:
        """What is written until a text has come."""
        written, deadline = "", time.monotonic() + 30
        while text not in re.sub(r"\x1b\[[0-9;]*m", "", written):
            assert time.monotonic() < deadline, f"{text!r} did not come: {written!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                written += os.read(self.master, 65536).decode(errors="replace")
        return written

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(data: Path) -> Any:
    found = Terminal(data)
    yield found
    found.close()


def test_paging_on_a_terminal(terminal: Terminal) -> None:
    import termios

    terminal.until("any other key leaves")
    terminal.press("\r")
    first = terminal.until("q leave")
    assert "\x1b[?1049h" in first  # another screen, so that nothing of the user's is overwritten
    assert "sum-1" in first
    assert "\x1b[9;31m13" in first
    assert "\x1b[1;32m12" in first
    terminal.press("n")
    assert "word-1" in terminal.until("2/3   n next")
    terminal.press("nnn")  # there is nothing behind the last
    assert "word-2" in terminal.until("3/3   n next")
    terminal.press("\x1b[D")
    assert "word-1" in terminal.until("2/3   n next")
    terminal.press("q")
    assert "\x1b[?1049l" in terminal.until("\x1b[?1049l")
    assert terminal.process.wait(timeout=30) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_scrolling_a_long_pair(tmp_path: Path) -> None:
    # 40 lines, the edits in the lines 20 and 40, on a terminal of 12 lines.
    lines = [f"line {number}" for number in range(1, 41)]
    changed = [f"{line} changed" if number in (20, 40) else line for number, line in enumerate(lines, 1)]
    row = {"id": "long", "prompt": "?", "rejected": "\n".join(lines), "chosen": "\n".join(changed)}
    terminal = Terminal(write(tmp_path / "data.jsonl", [row]))
    try:
        terminal.until("any other key leaves")
        terminal.press("n")
        assert "line 20" not in terminal.until("1/1  ↓")
        terminal.press("e")
        assert "line 20 changed" in re.sub(r"\x1b\[[0-9;]*m", "", terminal.until("1/1  ↓"))
        terminal.press("e")
        assert "line 40 changed" in re.sub(r"\x1b\[[0-9;]*m", "", terminal.until("1/1   n next"))
        terminal.press("g")
        assert "long" in terminal.until("1/1  ↓")
        terminal.press(" ")
        assert "line 12" in terminal.until("1/1  ↓")
        terminal.process.send_signal(signal.SIGINT)  # Ctrl-C leaves as q does
        terminal.until("\x1b[?1049l")
        assert terminal.process.wait(timeout=30) == 0
    finally:
        terminal.close()


def test_any_other_key_leaves_at_once(terminal: Terminal) -> None:
    terminal.until("any other key leaves")
    terminal.press("x")
    assert terminal.process.wait(timeout=30) == 0


def test_a_large_file_is_streamed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tracemalloc

    # Ten times the rows may cost the keys that duplicates are known by, a few numbers each, and not the 2 kB of text.
    peaks = []
    for number in (300, 3000):
        text = "word " * 200
        rows = [{**PAIRS[1], "id": str(n), "rejected": f"{text}{n}", "chosen": f"{text}-{n}"} for n in range(number)]
        path = write(tmp_path / f"{number}.jsonl", rows)
        del rows
        tracemalloc.start()
        look(path, quiet=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2700 < 600


def test_a_right_answer_of_the_policys_own_is_shown_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "data.jsonl", [{"id": "own", "prompt": "1 + 1", "chosen": "It is 2.", "verdict": "right"}])
    found = look(path)
    assert (found.pairs, found.alone, found.unchanged, found.unmeasured, found.ratio_max) == (1, 1, 0, 0, None)
    text = capsys.readouterr().out
    assert "1 row without y-: right answers of the policy's own" in text
    assert "change ratio" not in text
    assert text.endswith("\n  It is 2.\n\n")


def test_what_is_told_of_edits_leaves_own_right_answers_out(tmp_path: Path) -> None:
    own = {"id": "own", "prompt": "1 + 1", "chosen": "It is 2.", "verdict": "right"}
    html = tmp_path / "page.html"
    found = look(write(tmp_path / "data.jsonl", [*PAIRS, own]), html=html)
    alone = look(write(tmp_path / "pairs.jsonl", PAIRS))
    edits = ("ratio_median", "ratio_mean", "histogram", "first_edit_median", "first_edits", "shared_prefix")
    assert [getattr(found, name) for name in edits] == [getattr(alone, name) for name in edits]
    assert (found.pairs, found.alone, alone.alone) == (4, 1, 0)
    page = html.read_text(encoding="utf-8")
    assert "1 without y-: right answers of the policy's own" in page
    assert page.count("change ratio <b>") == 3
