"""A recipe from a template: checked as a recipe, then written, with the schema for editors beside it."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from spotcli import files, recipe_yaml
from spotcli.console import warn
from spotcli.errors import UserError
from spotcli.templates.answers import Answers, Ask, Wishes, answers_of
from spotcli.templates.catalog import rendered
from spotcli.templates.checks import check_key, check_model, check_packages, check_problems, is_served
from spotcli.templates.hardware import SMALL, billions_of, engine_lines, training_lines

SCHEMA = "recipe.schema.json"
MODELINE = "# yaml-language-server: $schema={}\n"
"""Names the schema of a YAML file for editors."""


@dataclass(frozen=True)
class InitSummary:
    """What was written, and what to do next."""

    recipe: str
    template: str
    hardware: str
    schema: str | None
    """The file of the schema; null if another file has its name."""
    warnings: list[str]
    next: list[str]
    """Commands."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def schema_text() -> str:
    """Return the JSON schema of a recipe."""
    return (resources("spotcli") / SCHEMA).read_text(encoding="utf-8")


def init(
    path: Path, wishes: Wishes, ask: Ask | None, *, check_tasks: Callable[[Any], None], force: bool
) -> InitSummary:
    """Write a recipe.

    Args:
        path: the file, or a folder for ``recipe.yaml``.
        wishes: what was given.
        ask: asks at the terminal for what was not given.
        check_tasks: raises for a recipe with unknown tasks.
        force: replace an existing file.

    Raises:
        UserError: the file exists, or what was given can never work.
    """
    path = path / "recipe.yaml" if path.is_dir() else path
    files.check_writable(path)
    if path.exists() and not force:
        raise UserError("the file exists", where=str(path), cure="replace it with --force, or name another file")
    answers = answers_of(wishes, ask, is_served)
    warnings = [*check_model(answers), *check_problems(answers)]
    oracle_key, missing = check_key(answers.oracle, "--oracle")
    model_key, model_missing = check_key(answers.model, "--model") if _asks_provider(answers) else (None, None)
    text = recipe_text(answers, path, oracle_key=oracle_key, model_key=model_key)
    recipe = _checked(text)
    check_tasks(recipe)
    warnings += [*filter(None, (missing, model_missing)), *check_packages(text)]
    files.make_parent(path)
    schema = _write_schema(path.with_name(SCHEMA))
    files.write_text(path, (MODELINE.format(SCHEMA) if schema else "") + text)
    for message in warnings:
        warn(message)
    exports = [
        f"export {key}=..." for key, lacks in ((oracle_key, missing), (model_key, model_missing)) if key and lacks
    ]
    steps = [
        command.replace("{recipe}", shlex.quote(str(path))).replace("{model}", shlex.quote(answers.model))
        for command in answers.template.next
    ]
    return InitSummary(
        recipe=str(path),
        template=answers.template.name,
        hardware=str(answers.hardware),
        schema=str(schema) if schema else None,
        warnings=warnings,
        next=[*dict.fromkeys(exports), *steps],
    )


def recipe_text(answers: Answers, path: Path, *, oracle_key: str | None = None, model_key: str | None = None) -> str:
    """Return the recipe for the answers, without the line for editors.

    Args:
        answers: what the user wants.
        path: of the recipe, for the commands in its comments.
        oracle_key: the environment variable of the oracle's key.
        model_key: that of the model's provider.
    """
    template, hardware, billions = answers.template, answers.hardware, billions_of(answers.model)
    training = training_lines(hardware, billions, prefer_lora=template.prefer_lora)
    trains_all = not any(line.key == "lora" and line.value != "null" for line in training)
    is_small = billions is not None and billions <= SMALL
    recipe = shlex.quote(str(path))
    return rendered(
        template,
        {
            "name": _run_name(path, answers.model),
            "recipe": recipe,
            "command": f"spot run {recipe}",
            "model": answers.model,
            "problems": answers.problems,
            "is_file": answers.problem_file is not None,
            "oracle": answers.oracle,
            "oracle_key": oracle_key or (_provider_key(answers.oracle)),
            "model_key": model_key,
            "tasks": list(answers.tasks),
            "base_url": answers.base_url,
            "hardware": hardware,
            "assumed": hardware.assumed,
            "engine": engine_lines(hardware, billions),
            "training": training,
            "tokens": 1024 if is_small else 32768 if trains_all else 8192,
            "length": 2048 if is_small else 8192 if trains_all else 4096,
            "thinking": bool(re.search(r"qwen3-\d+(\.\d+)?b(-a\d+b)?$", answers.model.lower())),
        },
    )


def _provider_key(oracle: str) -> str | None:
    """Words for the key of an oracle that is a provider's model."""
    return None if oracle in ("", "symbolic", "human", "policy", "policy-prompted") else "its provider's key"


def _asks_provider(answers: Answers) -> bool:
    return answers.template.name == "api" and not answers.base_url


def _run_name(path: Path, model: str) -> str:
    """The name of the run: that of the file, or of the model if the file has the usual name."""
    name = path.stem if path.stem != "recipe" else model.removeprefix("builtin:").rpartition("/")[2] or "run"
    return re.sub(r"[^\w.-]+", "-", name.lower()).strip("-.") or "run"


def _checked(text: str) -> Any:
    """Load a recipe from its text.

    Raises:
        RecipeError: a value is invalid.
    """
    with tempfile.TemporaryDirectory(prefix="spot-init-") as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return recipe_yaml.load(file)


def _write_schema(path: Path) -> Path | None:
    """Write the schema, or update it; None if the name belongs to another file."""
    text = schema_text()
    if path.exists():
        try:
            is_ours = json.loads(path.read_text(encoding="utf-8")).get("title") == json.loads(text)["title"]
        except (ValueError, AttributeError, OSError):
            is_ours = False
        if not is_ours:
            warn(f"{path}: another file has this name, so the schema for editors is not written")
            return None
    files.write_text(path, text)
    return path
