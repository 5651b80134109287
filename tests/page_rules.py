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
    (
        r"spot train RECIPE -s train\.(nodes|processes)=",
        "needs several GPUs; `nox -s ranks` trains with two processes",
    ),
    (r"\S+/vllm serve|.* --python /opt/vllm", "needs vLLM; `nox -s vllm` runs it"),
    (r"cd grpo && ", "trains with GRPO on GPUs; tests/exporting loads the files with TRL"),
    (r"spot init$", "asks questions on a terminal; tests/templates answers them"),
    (r"spot inspect .*--sample", "opens the application on a terminal; tests/inspection/app does it"),
    (r"inspect view", "opens the viewer of Inspect, another package"),
    (
        r"spot (push|rectify .*--push-to-hub) (?!.*--dry-run)",
        "uploads to the hub; tests/publishing does it with a local server",
    ),
    (r"spot eval linius/", "reads nine sets of the hub; tests/evaluation reads them from files"),
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

ON_ITS_OWN = ("spot sample problems.jsonl --model Qwen/Qwen3-8B --base-url",)
"""Commands of tutorials that do not continue what precedes them."""

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
ALTERNATIVES = ("rectify", "sample")
"""Commands whose outputs are absent before each call: the calls of a block are alternatives."""
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
    output: bool = True
    """Whether the output on the page is compared; otherwise it is that of larger files."""
    before: str = ""
    """A shell command that is executed first: what the page leaves to the reader."""
    after: str = ""
    """A shell command that is executed last."""
    env: dict[str, str] = field(default_factory=dict)


DAMAGE = """printf '{"id": "sum-24", "prompt": "9 +' >> data.jsonl"""
BY_POLICY = "spot sample --grade answers.jsonl --model builtin:smollm2-135m --fresh"
"""The samples of a policy that is at hand."""
GRADER = "echo 'check = lambda response, reference: reference in response' > mygrader.py"
SMOLLM2 = "sed -i s,Qwen/Qwen3-8B,builtin:smollm2-135m, recipe.yaml"
ENDPOINT = Case(before="mv Qwen elsewhere", after="mv elsewhere Qwen")
"""The model is at the endpoint, not in a folder."""
QWEN3 = (
    "sample.problems=problems.jsonl sample.limit=24 sample.python=null sample.max_new_tokens=64"
    " eval.limit=4 eval.trials=1 eval.data_dir=benchmarks eval.max_new_tokens=48"
    " train.max_steps=2 train.batch_size=4 rectify.base_url={openai} rectify.gamma=1.0"
)
"""The recipe of the tutorial for one GPU without a GPU, the hub and a provider."""
CASES: tuple[tuple[str, Case], ...] = (
    (
        r"spot sample --recipe r.yaml --merge",
        Case(before="for i in 3 4; do spot sample --recipe r.yaml --shard $i/4; done"),
    ),
    (r"spot inspect .*ratoi", Case(code=2)),
    (r"spot inspect scores/checkpoint.jsonl --where lost", Case(output=False)),
    (r"spot rectify --oracle gpt-4o --dry-run --max-cost (2|0\.02)\b", Case(output=False)),
    (r"spot rectify --oracle anthropic/\S+ --dry-run -s rectify.params.thinking", Case(output=False)),
    (r"spot plan recipe.yaml$", Case(output=False)),
    (r"spot eval checkpoint --against Qwen/Qwen3-8B$", Case(output=False)),
    (r"spot inspect data.jsonl \| tail -n 6", Case(before=DAMAGE)),
    (r"spot rectify --oracle policy", Case(before=BY_POLICY, env={"SPOT_RECTIFY_CONTINUATIONS": "2"})),
    (r"spot inspect data.jsonl --tokens", Case(before=f"{BY_POLICY} && spot rectify --oracle symbolic --fresh")),
    (r"spot merge checkpoint", Case(before="rm -r checkpoint && spot train recipe.yaml -s train.lora.r=4")),
    (r"spot inspect .*--surprise", Case(before=SMOLLM2)),
    (r"spot eval .*--rescore", Case(before=GRADER, env={"SPOT_EVAL_TASK": "mine.jsonl"})),
    (r"spot (sample|eval) .*HOST", ENDPOINT),
    (r"spot plan recipes/qwen3-8b.yaml", Case(env={"SPOT_PLAN_SET": f"{QWEN3} train.processes=1 train.zero=0"})),
    (r"spot (plan|run) qwen3.yaml", Case(env={"SPOT_RUN_SET": QWEN3, "SPOT_PLAN_SET": QWEN3})),
)


def reason_not_run(command: Command) -> str | None:
    """Why a command is not executed; None if it is."""
    return next((reason for pattern, reason in NOT_RUN if re.match(pattern, command.text)), None)


def case_of(command: Command) -> Case:
    return next((case for pattern, case in CASES if re.match(pattern, command.text)), Case())


def is_known(command: Command) -> bool:
    """Whether a command is executed or listed."""
    return reason_not_run(command) is not None or command.text.split()[0] in PROGRAMS
