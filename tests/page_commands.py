"""The code on the pages: shell commands, with the output that a page shows below them, and Python blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:[\w~.-]*/)*"
    r"(?:accelerate|bash|cd|docker|export|git|inspect|mkdir|nox|pip|pipx|pytest|python3?|spot|srun|uv|vllm)(?: |$)"
)
"""The beginning of a command: variables, and a program that may have a path."""
PROMPT = "$ "
SHELLS = ("", "sh", "bash", "console")
"""Languages of the fenced blocks that can have commands."""


@dataclass(frozen=True)
class Block:
    """An indented or fenced block of a page."""

    page: str
    line: int
    """The number of its first line."""
    language: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass(frozen=True)
class Command:
    """A shell command on a page."""

    page: str
    line: int
    text: str
    """Without the comment behind it."""
    output: tuple[str, ...] = ()
    """The lines that the page shows as its output."""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def missing_from(self, output: str) -> list[str]:
        """The lines that the page shows and a real output lacks; `...` on the page stands for any lines."""
        lines = [line for line in self.output if line.strip() not in ("", "...")]
        return [line for line in lines if _squeezed(line) not in _squeezed(output)]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in their order, without those that are empty."""
    fence: str | None = None
    start = 0
    lines: list[str] = []
    for number, line in enumerate([*page.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line.lstrip().startswith("```"):
            if fence is None:
                fence, start = line.strip().removeprefix("```"), number + 1
            else:
                yield Block(page.name, start, fence, tuple(lines))
                fence = None
            lines = []
        elif fence is not None:
            lines.append(line)
        elif line.startswith("    "):
            start = start if lines else number
            lines.append(line[4:])
        elif lines and line.strip():
            yield Block(page.name, start, "", _stripped(lines))
            lines = []
        elif lines:
            lines.append("")
    if lines:
        yield Block(page.name, start, "", _stripped(lines))


def _stripped(lines: list[str]) -> tuple[str, ...]:
    return tuple("\n".join(lines).rstrip().split("\n"))


def commands(block: Block) -> list[Command]:
    """The commands of a block; none if its first line is not one.

    Every line of a block of commands is one, or continues the line before it, which then ends with a backslash. Where
    commands have a prompt (``$ ``), the other lines are output.
    """
    first = block.lines[0] if block.lines else ""
    if block.language not in SHELLS or not PROGRAM.match(first.removeprefix(PROMPT)) or "[OPTIONS]" in first:
        return []
    if first.startswith(PROMPT):
        return _with_output(block)
    found: list[Command] = []
    for number, line in enumerate(block.lines, block.line):
        text = without_comment(line)
        if found and found[-1].text.endswith("\\"):
            found[-1] = Command(block.page, found[-1].line, f"{found[-1].text[:-1].rstrip()} {text.strip()}")
        elif text:
            found.append(Command(block.page, number, text))
    return found


def _with_output(block: Block) -> list[Command]:
    starts = [index for index, line in enumerate(block.lines) if line.startswith(PROMPT)]
    found = []
    for start, end in zip(starts, [*starts[1:], len(block.lines)], strict=True):
        text = without_comment(block.lines[start].removeprefix(PROMPT))
        found.append(Command(block.page, block.line + start, text, block.lines[start + 1 : end]))
    return found


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def without_comment(line: str) -> str:
    return re.split(r"\s+#\s", line)[0].rstrip()


def page_commands(page: Path) -> list[Command]:
    """All commands of a page in their order."""
    return [command for block in blocks(page) for command in commands(block)]


def python_blocks(page: Path) -> list[Block]:
    """All Python blocks of a page in their order."""
    return [block for block in blocks(page) if block.language == "python"]


def inline_commands(page: Path) -> list[str]:
    """Calls of ``spot`` with options in the text of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [" ".join(call.split()) for call in re.findall(r"`(spot [a-z]+ [^`]*-[^`]*)`", text)]
