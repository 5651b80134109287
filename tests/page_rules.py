"""Which commands of the pages are executed by `nox -s newcomer -- pages`, and why the others are not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.page_commands import Command

INSTALLS = "installs packages; `nox -s newcomer` installs the wheel with its extras"
SESSION = "is a nox session, which runs by itself"
BENCHMARK = "measures with data or packages that are not in this repository"
VARIABLE = "sets a variable of the reader's shell"
NOT_RUN = (
    (r"pip install|python -m venv|\S+/pip install", INSTALLS),
    (r"git clone", "has a placeholder, REPOSITORY"),
    (r"nox -s", SESSION),
    (r"OMP_NUM_THREADS=1 pytest", "is a part of `nox -s tests`"),
    (r"export [A-Z_]+=", VARIABLE),
    (r"python benchmarks/|peers/bin/python|python3 -m pip install --no-index", BENCHMARK),
    (r"srun ", "needs Slurm and several machines"),
    (r"spot train RECIPE -s train\.nodes=2", "needs a second machine"),
    (r"\S+/vllm serve|.* --python /opt/vllm", "needs vLLM; `nox -s vllm` runs it"),
    (r"cd grpo && ", "trains with GRPO on GPUs; tests/exporting loads the files with TRL"),
    (r"inspect view", "opens the viewer of Inspect, another package"),
    (r"spot push (?!.*--dry-run)", "uploads to the hub; tests/publishing does it with a local server"),
    (r"spot [a-z]+ .*\bhf:", "reads a set of the hub"),
)
"""Patterns of commands that are not executed, from the beginning of the command, and the reason."""

PROGRAMS = ("spot", "cd", "mkdir")
"""Programs whose commands are executed."""

IN_TEXT = {
    "plugins.md": ("spot sample --engine echo --model anything",),
    "evaluation.md": ("spot eval checkpoint --task squares",),
}
"""Commands in the text of pages that are executed too; the other ones are only checked for their options."""

TUTORIALS = ("tutorial-no-gpu.md", "tutorial-one-gpu.md", "index.md")
"""Pages whose commands follow each other from an empty folder; all others begin in a folder with every file."""

OUTPUTS = {
    "sample": ("samples.*", "sharded.*"),
    "rectify": ("data.*",),
    "train": ("checkpoint",),
    "eval": ("scores",),
    "merge": ("merged",),
    "run": ("runs",),
    "plan": ("runs",),
    "init": ("recipe.yaml",),
    "export": ("grpo",),
}
"""What a command writes: absent before its first call in a block."""
CONTINUES = re.compile(r" --(replay|rescore|import|from|shard|merge)\b")
"""Options of commands that go on with their outputs."""
SPENDS = re.compile(r"spot rectify .*--(oracle|then) (?!symbolic|policy|human|shouter)\S")
"""Commands that ask an oracle which costs money: they are executed with ``--dry-run`` before."""
SPOKEN_BY_ANTHROPIC = re.compile(r" anthropic/")
HOST = "http://HOST:8000/v1"
"""A placeholder for the reader's own endpoint."""


@dataclass(frozen=True)
class Case:
    """What a command needs beside the folder, and how it ends."""

    code: int = 0
    before: str = ""
    """A shell command that is executed first: what the page leaves to the reader."""
    env: dict[str, str] = field(default_factory=dict)


CASES: tuple[tuple[str, Case], ...] = (
    (
        r"spot sample --recipe r.yaml --merge",
        Case(before="for i in 3 4; do spot sample --recipe r.yaml --shard $i/4; done"),
    ),
    (r"spot inspect .*ratoi", Case(code=2)),
)


def reason_not_run(command: Command) -> str | None:
    """Why a command is not executed; None if it is."""
    return next((reason for pattern, reason in NOT_RUN if re.match(pattern, command.text)), None)


def case_of(command: Command) -> Case:
    return next((case for pattern, case in CASES if re.match(pattern, command.text)), Case())


def is_known(command: Command) -> bool:
    """Whether a command is executed or listed."""
    return reason_not_run(command) is not None or command.text.split()[0] in PROGRAMS
