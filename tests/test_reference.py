"""The generated pages and the JSON schema of a recipe are up to date, and the schema accepts what spot accepts."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from spotcli.errors import RecipeError
from spotcli.recipe import Recipe, section
from spotcli.recipe_yaml import dump, load
from spotcli.training.keys import OWNED
from spotcli.yaml_nodes import compose, construct
from tests.conftest import ROOT
from tests.reference import CLI_PAGE, COMMAND, MARK, RECIPE_PAGE, stale
from tests.test_cli import parameters_by_command

SCHEMA: Any = json.loads((files("spotcli") / "recipe.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)\n")


def values_of(text: str) -> Any:
    """A YAML text as spot reads it."""
    node = compose(text, "recipe")
    assert node is not None
    return construct(node, "recipe")


def problems(text: str) -> list[str]:
    """What the schema rejects in a recipe."""
    return [error.message for error in VALIDATOR.iter_errors(values_of(text))]


def test_the_generated_files_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    old = [str(path.relative_to(ROOT)) for path in stale()]
    assert old == [], f"run `{COMMAND}`"


def test_the_pages_contain_every_key_and_every_option() -> None:
    page = RECIPE_PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    for name in ("", "sample", "rectify", "train", "eval"):
        model: Any = section(Recipe, name) if name else Recipe
        assert [key for key in model.model_fields if f"| `{key}` |" not in page] == []
    page = CLI_PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    for command, parameters in parameters_by_command().items():
        part = page.partition(f"\n## spot {command}\n")[2].partition("\n## ")[0]
        for parameter in parameters:
            assert f"`{', '.join([*parameter.opts, *parameter.secondary_opts])}" in part or parameter.metavar in part
        assert f"    spot {command} " in part.partition("**Examples**")[2]


@pytest.mark.parametrize("page", [RECIPE_PAGE, CLI_PAGE])
def test_the_pages_are_readable_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"[╭│\x1b]|\[/?(bold|cyan)\]|``[^`]|/home/|/tmp/", text)
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


# The schema


def test_the_schema_is_valid_and_documents_every_key() -> None:
    Draft7Validator.check_schema(SCHEMA)
    for part in (SCHEMA, *SCHEMA["$defs"].values()):
        assert [name for name, keys in part["properties"].items() if not keys.get("description")] == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_names_the_schema_and_agrees_with_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    match = MODELINE.match(text)
    assert match is not None
    assert json.loads((path.parent / match[1]).read_text(encoding="utf-8")) == SCHEMA
    assert problems(text) == []


def test_a_resolved_recipe_agrees_with_the_schema() -> None:
    assert problems(dump(load(ROOT / "recipes" / "qwen3-8b-lora.yaml"))) == []


ACCEPTED = (
    "sample:\n  # trials: 2\ntrain:\n",
    "sample: {temperature: none, max_new_tokens: null, thinking: off, engine: api}",
    "rectify: {oracle: gpt-4o, then: [human, x/y], max_tokens: none, params: {a: {b: 1}}, policy: {search: sweep}}",
    "train: {shift: 0.5, share_prefix: false, lora: {r: 8, use_rslora: true}, learning_rate: 1e-6, save_steps: 50}",
    "eval: {tasks: [aime24, mine.jsonl], task_settings: {aime24: {trials: 4}}}",
)
REJECTED = (
    "sampel: {}",
    "sample: {temprature: 1}",
    "sample: {trials: 0}",
    "sample: {top_p: 1.5}",
    "sample: 5",
    "rectify: {policy: null}",
    "rectify: {mode: exact}",
    "rectify: {gamma: '0.6 or so'}",
    "rectify: {policy: {continuations: 0}}",
    "train: {output_dir: x}",
    "train: {objective: ppo}",
    "train: {zero: 1}",
    "train: {lora: {r: 0}}",
    "eval: {tasks: arithmetic}",
    "eval: {task_settings: {aime24: {trails: 3}}}",
    "seed: -1",
    "name: null",
)


@pytest.mark.parametrize("text", ACCEPTED)
def test_the_schema_accepts_what_spot_accepts(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    load(path)
    assert problems(text) == []


@pytest.mark.parametrize("text", REJECTED)
def test_the_schema_rejects_what_spot_rejects(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    assert problems(text) != []
    if not any(key in text for key in OWNED):  # these are refused when training starts
        with pytest.raises(RecipeError):
            load(path)
