"""What the user wants: given as options, asked at the terminal, or the defaults for this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from spotcli.templates.catalog import DAPO, GEMINI, QWEN3, SMOLLM2, TEMPLATES, Template, template_of
from spotcli.templates.hardware import SMALL, Hardware, billions_of, detect, training_lines

Ask = Callable[[str, str], str]
"""Asks a question and returns the answer: (question, default)."""

ORACLES = {
    "GEMINI_API_KEY": GEMINI,
    "OPENAI_API_KEY": "gpt-4o",
    "ANTHROPIC_API_KEY": "anthropic/claude-sonnet-4-5",
}
"""Variable of a provider's key -> the oracle that is suggested if it is set."""

LOCAL_SERVER = "http://localhost:8000/v1"
"""The address of `vllm serve` on this machine."""


@dataclass(frozen=True)
class Wishes:
    """What was given; None where nothing was."""

    template: str | None = None
    model: str | None = None
    problems: str | None = None
    oracle: str | None = None
    tasks: tuple[str, ...] | None = None
    base_url: str | None = None
    gpus: int | None = None
    gpu_memory: float | None = None

    @property
    def is_empty(self) -> bool:
        return self == Wishes()


@dataclass(frozen=True)
class Answers:
    """Everything that a recipe is written from."""

    template: Template
    model: str
    problems: str
    oracle: str
    tasks: tuple[str, ...]
    base_url: str | None
    hardware: Hardware

    @property
    def problem_file(self) -> str | None:
        """The file of problems; None for a set of the hub and a built-in one."""
        return self.problems if is_file_name(self.problems) else None


def is_file_name(problems: str) -> bool:
    """Whether a problem set is a file."""
    return bool(problems) and not problems.startswith(("hf:", "builtin:"))


def answers_of(wishes: Wishes, ask: Ask | None, is_served: Callable[[str], bool]) -> Answers:
    """Complete what was given.

    Args:
        wishes: what was given.
        ask: asks at the terminal for what was not given; None: the defaults are used.
        is_served: whether a name is that of a model at a provider.

    Raises:
        UserError: there is no such template.
    """
    chosen = template_of(wishes.template) if wishes.template else None
    hardware = _hardware(wishes, chosen, ask)
    answer = ask or (lambda _question, default: default)
    local = QWEN3 if hardware.gpus else SMOLLM2
    model = wishes.model or answer(
        "Model (a folder, a model of the hub, or a provider's)", chosen.model if chosen else local
    )
    problems = wishes.problems or answer(
        "Problems (a file, hf:ORG/NAME, or builtin:arithmetic)", chosen.problems if chosen else _problems(model)
    )
    oracle = wishes.oracle or answer(
        "Oracle (a provider's model, symbolic, human, or policy)", _oracle(problems, chosen.oracle if chosen else None)
    )
    template = chosen or _template(model, problems, hardware)
    is_api = template.file == TEMPLATES["api"].file
    tasks = wishes.tasks if wishes.tasks is not None else template.tasks
    if wishes.tasks is None and ask and tasks:
        tasks = tuple(ask("Tasks to evaluate (names or files, separated by spaces)", " ".join(tasks)).split())
    base_url = wishes.base_url
    if is_api and base_url is None and not is_served(model):
        base_url = answer("Base URL of the endpoint that serves the model", LOCAL_SERVER)
    return Answers(template, model, problems, oracle, tasks, base_url, hardware)


def _hardware(wishes: Wishes, chosen: Template | None, ask: Ask | None) -> Hardware:
    if chosen and chosen.hardware is not None and wishes.gpus is None:
        known = chosen.hardware
    else:
        known = detect()
        if chosen and not known.gpus and wishes.gpus is None:
            known = Hardware(1, 24, assumed=True)
    gpus = wishes.gpus
    if gpus is None and ask:
        gpus = _number(ask, f"GPUs (seen: {known})", known.gpus)
    if gpus is not None and gpus != known.gpus:
        known = Hardware(gpus, known.memory, assumed=gpus > 0)
    if wishes.gpu_memory is not None:
        known = replace(known, memory=wishes.gpu_memory)
    elif ask and known.gpus and not known.memory:
        known = replace(known, memory=float(_number(ask, "Memory of a GPU in GB (0: unknown)", 0)))
    return known


def _number(ask: Ask, question: str, default: int) -> int:
    """Ask for a whole number until the answer is one."""
    while not (text := ask(question, str(default))).isdecimal() or len(text) > 6:
        question = f"A whole number is required. {question.removeprefix('A whole number is required. ')}"
    return int(text)


def _problems(model: str) -> str:
    if Path("problems.jsonl").is_file():
        return "problems.jsonl"
    return "builtin:arithmetic" if model == SMOLLM2 else DAPO


def _oracle(problems: str, oracle: str | None) -> str:
    """The oracle to suggest: the symbolic one for arithmetic, else one whose key is set."""
    if problems == "builtin:arithmetic":
        return "symbolic"
    keyed = [name for variable, name in ORACLES.items() if os.environ.get(variable, "").strip()]
    if oracle is not None and oracle not in ("symbolic", GEMINI):
        return oracle
    return keyed[0] if keyed else GEMINI


def _template(model: str, problems: str, hardware: Hardware) -> Template:
    """The template for a model, its problems and the hardware."""
    billions = billions_of(model)
    small = billions is not None and billions <= SMALL
    if not hardware.gpus:
        return TEMPLATES["demo" if small else "api"]
    if is_file_name(problems):
        return replace(TEMPLATES["own-problems"], hardware=hardware)
    keys = {line.key for line in training_lines(hardware, billions) if line.value != "null"}
    name = "lora" if "lora" in keys else "full"
    tasks = ("arithmetic",) if problems == "builtin:arithmetic" else TEMPLATES[name].tasks
    return replace(TEMPLATES[name], hardware=hardware, prefer_lora=False, tasks=tasks)
