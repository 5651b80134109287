"""problems and checkpoint -> a folder that verl or TRL trains on with GRPO.

spot export samples.jsonl --for trl --model checkpoint -o grpo
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from spotcli import __version__, files, outputs
from spotcli.console import counted, say
from spotcli.errors import UserError
from spotcli.exporting import trl, verl
from spotcli.exporting.prompts import Prompts, read_prompts
from spotcli.grading.kinds import grader_of
from spotcli.policies import models

Trainer = Literal["trl", "verl"]
_OWN = re.compile(r"Written by `spot export`")
"""In the README of an exported folder."""
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_MAX_NEW_TOKENS = 8192
"""Where no meta file has the limit of the samples."""


@dataclass(frozen=True)
class ExportSummary:
    """What was exported."""

    folder: str
    trainer: Trainer
    model: str
    prompts: int
    rows: int
    """Rows of the source: ``prompts`` and everything in ``left_out``."""
    left_out: dict[str, int]
    grader: str
    files: list[str]
    command: str
    """What trains, in the folder."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Start:
    """What GRPO starts from, and how much of the problems it gets."""

    trainer: Trainer
    model: str = "checkpoint"
    grader: str | None = None
    """By default that of the samples."""
    limit: int | None = None
    """Only the first N problems."""


def export(source: Path, start: Start, folder: Path) -> ExportSummary:
    """Write what GRPO needs into a folder; files of an earlier export are replaced.

    Args:
        source: problems, samples or pairs.
        start: the trainer and the model.
        folder: where it is written.

    Raises:
        UserError: the source or the model is not found, the model is an adapter, or the folder has other files.
        DataError: an invalid row, or one of an evaluation.
    """
    model = _model(start.model)
    _check_folder(folder)
    prompts = read_prompts(source, start.limit)
    facts = _facts(source, start)
    for name in {problem.grader for problem in prompts.problems}:
        grader_of(name, facts["grader"])
    kind = {"trl": trl, "verl": verl}[start.trainer]
    contents = kind.files(prompts.problems, model, facts)
    contents["README.md"] = _readme(kind, source, model, prompts, facts).encode()
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        files.replace(folder / name, [content])
    for reason, count in prompts.left_out.items():
        say(f"{source}: left out {counted(count, 'row')}: {reason}")
    return ExportSummary(
        folder=str(folder),
        trainer=start.trainer,
        model=model,
        prompts=len(prompts.problems),
        rows=prompts.rows,
        left_out=dict(prompts.left_out),
        grader=facts["grader"],
        files=sorted(contents),
        command=kind.COMMAND,
    )


def _model(name: str) -> str:
    """The model as the trainer finds it from any folder.

    Raises:
        UserError: it is not found, or it is an adapter.
    """
    path = Path(name)
    if (path / "adapter_config.json").is_file():
        raise UserError(
            "expected a whole model, got a LoRA adapter", where=name, cure=f"spot merge {name} -o merged, then --model"
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError("the folder has no config.json, so it is not a model", where=name, cure="set --model")
        return os.path.abspath(path)
    if name.startswith("builtin:"):
        return models.resolve(name)
    if _HUB.fullmatch(name) and not path.parent.is_dir():
        return name
    raise UserError("model folder not found", where=name, cure="train one with `spot train`, or set --model")


def _check_folder(folder: Path) -> None:
    """Refuse a folder with files that no export wrote.

    Raises:
        UserError: there are some.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError("expected a folder, got a file", where=str(folder), cure="write to another folder (-o)")
    readme = folder / "README.md"
    own = readme.is_file() and _OWN.search(readme.read_text(encoding="utf-8", errors="replace"))
    if folder.is_dir() and any(folder.iterdir()) and not own:
        raise UserError("the folder has other files", where=str(folder), cure="write to a folder of its own (-o)")


def _facts(source: Path, start: Start) -> dict[str, Any]:
    """How the samples were asked for and graded, as their meta file has it."""
    meta = outputs.read_meta(source)
    settings, engine = meta.get("settings", {}), meta.get("engine", {})
    kwargs = engine.get("chat_template_kwargs") or settings.get("chat_template_kwargs")
    return {
        "grader": start.grader or settings.get("grader") or "math",
        "max_new_tokens": settings.get("max_new_tokens") or _MAX_NEW_TOKENS,
        "chat_template_kwargs": kwargs if isinstance(kwargs, dict) else {},
    }


def _readme(kind: Any, source: Path, model: str, prompts: Prompts, facts: dict[str, Any]) -> str:
    left_out = [f"- left out: {counted(count, 'row')}: {reason}" for reason, count in prompts.left_out.items()]
    template = ", ".join(f"{name}={value!r}" for name, value in facts["chat_template_kwargs"].items()) or "none"
    return "\n".join(
        [
            "# GRPO after surgical post-training", "",
            f"Written by `spot export` {__version__} from {source.name}.", "",
            "```",
            f"pip install '{kind.PACKAGES}' 'surgical-post-training=={__version__}'",
            kind.COMMAND,
            "```", "",
            f"- start: {model}",
            f"- prompts: {len(prompts.problems)}, as they were sampled, system prompt and instruction included",
            *left_out,
            f"- grader: {facts['grader']}; right 1.0, wrong 0.0",
            f"- arguments of the chat template, as in sampling: {template}", "",
            "## Undecided answers", "",
            kind.UNDECIDED, "",
        ]
    )  # fmt: skip
