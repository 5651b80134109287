"""Text from outside in every field and name, and what every command shows of it: in a pipe and in a real terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

import spotcli
from spotcli.decisions import text_digest
from spotcli.records import Pair

SOURCE = Path(str(spotcli.__file__)).parents[1]
EVIL = (
    "\x1b]52;c;UFdO\x07\x1b]8;;http://evil\x1b\\here\x1b]8;;\x1b\\\x1b[2J\x1b[1;1H\x9b31m\x9d0;t\x9c\r\x08"
    "\u202e\u2066\u200b\u2060\ufeff\ufe00\ufe0f\U0001bca0\U000e0041\U000e0101\u2028\u2029\ud800\x00\n! cure: no"
    "[red]M[/red][link=http://evil]N[/link]<script>alert(1)</script>"
)
"""Escape sequences, bidirectional controls, hidden characters, a line break, Rich's markup, HTML."""
FILE = EVIL.translate(dict.fromkeys(map(ord, "/\x00\ud800"), None))
"""As the name of a file, which can't have all of it."""

FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U0001bca0-\U0001bca3\U000e0000-\U000e0fff]"
)
RICHS_OWN = re.compile(r"\x1b\[(?:[0-9;]*m|\?25[lh]|2K|[0-9]*A)")
"""What Rich itself writes to a terminal: colours, the cursor, and moves of a progress line."""


def row(**fields: Any) -> dict[str, Any]:
    pair = {"id": EVIL, "prompt": EVIL, "answer": EVIL, "source": EVIL, "response": EVIL, "finish_reason": "stop"}
    return {**pair, "verdict": "wrong", "extracted": EVIL, "reason": EVIL, **fields}


def pair(**fields: Any) -> dict[str, Any]:
    values = {"rejected": f"one {EVIL} two", "chosen": f"one {EVIL} three", "oracle": {"name": EVIL, "cost": 0.1}}
    return {
        "id": EVIL,
        "prompt": [{"role": "user", "content": EVIL}],
        "answer": EVIL,
        "source": EVIL,
        **values,
        **fields,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        f"{FILE}.jsonl": [pair(), pair(id="b", change_ratio=0.2, trial=3)],
        "samples.jsonl": [row(), row(id="b", grader=EVIL)],
        "names.jsonl": [{f"question{EVIL}": EVIL, "question": "x", EVIL: 1}],
        "bad.jsonl": [pair(verdict=EVIL), pair(trial=EVIL)],
        "grader.jsonl": [{"prompt": EVIL, "answer": "1", "grader": EVIL}],
    }
    for name, rows in files.items():
        (tmp_path / name).write_text("".join(json.dumps(values) + "\n" for values in rows))
    pairs = [Pair.model_validate(values) for values in files[f"{FILE}.jsonl"]]
    made = [{"decision": "reject", "reason": EVIL}, {"decision": "edited", "chosen": f"{EVIL} by hand"}]
    events = [
        {
            "time": EVIL,
            "who": EVIL,
            "action": EVIL,
            "key": decided.key,
            "digest": text_digest(decided),
            EVIL: EVIL,
            **how,
        }
        for decided, how in zip(pairs, made, strict=True)
    ]
    (tmp_path / f"{FILE}.review.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    meta = {"command": EVIL, "settings": {"model": EVIL}, "counts": {EVIL: {EVIL: 1, "x": EVIL}}}
    (tmp_path / f"{FILE}.meta.json").write_text(json.dumps(meta))
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({"model": EVIL.replace("\ud800", ""), "train": {"objective": "x\x1b[2J"}})
    )
    return tmp_path


COMMANDS = {
    "inspect": ["inspect", f"{FILE}.jsonl"],
    "inspect one": ["inspect", f"{FILE}.jsonl", "--id", "b"],
    "inspect json": ["inspect", f"{FILE}.jsonl", "--json"],
    "inspect html": ["inspect", f"{FILE}.jsonl", "--html", f"{FILE}.html"],
    "inspect a wrong row": ["inspect", "bad.jsonl"],
    "inspect a wrong filter": ["inspect", f"{FILE}.jsonl", "--where", "\x1b[2J\u202e"],
    "rectify": ["rectify", "samples.jsonl", "--oracle", "symbolic", "-o", f"out{FILE}.jsonl"],
    "sample": ["sample", "grader.jsonl", "--model", f"./{FILE}", "--engine", "transformers"],
    "sample api": [
        "sample",
        "samples.jsonl",
        "--model",
        f"openai/{FILE}",
        "--engine",
        "api",
        "--base-url",
        "http://127.0.0.1:9",
    ],
    "train": ["train", "recipe.yaml", "--dry-run"],
    "eval": ["eval", f"./{FILE}", "--task", "arithmetic"],
    "an unknown key": ["train", "recipe.yaml", "-s", f"{FILE}=1"],
}


def environment(folder: Path) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL") if name in os.environ}
    return {**keep, "PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "x", "TERM": "xterm-256color"}


def in_terminal(command: list[str], folder: Path, keys: bytes = b"") -> str:
    """Everything that a command writes to a terminal."""
    terminal, inside = pty.openpty()
    ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    process = subprocess.Popen(
        command, cwd=folder, env=environment(folder), stdin=inside, stdout=inside, stderr=inside, start_new_session=True
    )
    os.close(inside)
    written, deadline = b"", time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # the command has closed its terminal
                break
            if not part:
                break
            written += part
            if keys and b"q quit" in written:
                os.write(terminal, keys)
                keys = b""
        elif process.poll() is not None:
            break
    process.kill()
    process.wait()
    os.close(terminal)
    return written.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("inspect one", "eval")])
def test_nothing_from_outside_reaches_a_pipe(name: str, folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "spotcli", *COMMANDS[name]],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        timeout=120,
        check=False,
    )
    written = (result.stdout + result.stderr).decode("utf-8", "surrogateescape")
    assert "Traceback" not in written, written[-1500:]
    assert result.returncode in (0, 2, 3)
    assert FORBIDDEN.findall(written) == []
    assert "\x1b" not in written
    # The text of an answer has lines of its own, which are indented.
    assert not re.search(r"^! cure: no", written, re.MULTILINE)


APP_OWN = re.compile(r"\x1b\[[?<>=]?[0-9;:]*[ $]?[A-Za-z]|\x1b[=>78]|\r|\x0f|\x1b\([B0]|\x1b\]22;[a-z-]*\x07")
"""What Textual writes to a terminal: cursor, colours, modes and queries of the terminal."""


PASTED = b"\x1b[200~" + EVIL.translate({0x1B: None, 0xD800: None}).encode() + b"\x1b[201~"
"""As text from the clipboard."""


@pytest.mark.parametrize("keys", [b"szjnNooju" + b"?qq", b"/" + PASTED + b"\rf" + PASTED + b"\r\x03"])
def test_nothing_from_outside_reaches_the_terminal_of_the_app(keys: bytes, folder: Path) -> None:
    command = [sys.executable, "-m", "spotcli", *COMMANDS["inspect"]]
    written = in_terminal(command, folder, keys=keys)
    assert "\x1b[?1049h" in written  # the app was open
    shown = APP_OWN.sub("", written)
    assert "Traceback" not in shown
    assert FORBIDDEN.findall(shown) == []
    assert "\x1b" not in shown
    # Markup in the file has no effect.
    assert "[red]M" in shown


@pytest.mark.parametrize("name", ["inspect one", "sample"])
def test_nothing_from_outside_reaches_a_terminal(name: str, folder: Path) -> None:
    command = [sys.executable, "-m", "spotcli", *COMMANDS[name]]
    written = in_terminal(command, folder, keys=b"q")
    shown = RICHS_OWN.sub("", written).replace("\r\n", "\n")
    assert "Traceback" not in shown
    assert FORBIDDEN.findall(shown) == []
    for sequence in ("\x1b]", "\x1b[2J", "\x1b[1;1H"):
        assert sequence not in written
    if name == "inspect one":
        assert "[red]M[/red]" in shown
