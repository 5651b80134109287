"""The JSON schema of a recipe, for editors: built from the declarations in recipe.py."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator

from spotcli.evaluation.tasks.builtin import BUILTIN
from spotcli.oracles import by_name
from spotcli.recipe import Recipe, TrainSection, section
from spotcli.recipe_keys import ENGINES, as_switch, as_unset
from spotcli.training.keys import DEFAULTS, OWNED

GRADERS = ("math", "choice", "coordinates", "instructions")

SUGGESTED: Mapping[str, tuple[str, ...]] = {
    "engine": ENGINES,
    "oracle": by_name.BUILTIN,
    "then": by_name.BUILTIN,
    "tasks": tuple(BUILTIN),
    "grader": GRADERS,
    "problems": ("problems.jsonl", "builtin:arithmetic", "hf:BytedTsinghua-SIA/DAPO-Math-17k"),
}
"""Values that an editor offers for keys that take other values too."""


def recipe_schema() -> dict[str, Any]:
    """Return the schema of a recipe (draft 7): types, bounds, defaults, and the docstrings as descriptions."""
    schema = Recipe.model_json_schema()
    definitions = schema.pop("$defs")
    by_section = dict(_sections(Recipe))
    for model in by_section.values():
        _complete(model, schema if model is Recipe else definitions[model.__name__])
    train = definitions["TrainSection"]["properties"]
    for name, value in DEFAULTS.items():
        train[name] = _argument(name, value)
    for name, reason in refused_arguments().items():
        message = f"This key cannot be set: {reason}."
        train[name] = {"not": {}, "description": message, "errorMessage": message}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A recipe of spot",
        **{key: schema[key] for key in ("description", "type", "properties", "additionalProperties")},
        "$defs": definitions,
    }


def refused_arguments() -> dict[str, str]:
    """Return the training arguments that no recipe can set, with the reasons; spot has a key ``fsdp`` of its own."""
    return {name: reason for name, reason in OWNED.items() if name not in TrainSection.model_fields}


def schema_text() -> str:
    """Return the schema as the content of its file."""
    return json.dumps(recipe_schema(), indent=2, ensure_ascii=False) + "\n"


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    yield prefix, model
    for name in model.model_fields:
        if inner := section(model, name):
            yield from _sections(inner, f"{prefix}.{name}".lstrip("."))


def _complete(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Add to the schema of a section what pydantic leaves out: defaults of lists, values that validators accept."""
    schema.pop("title", None)
    schema["description"] = _plain(schema.get("description", ""))
    for name, field in model.model_fields.items():
        keys = schema["properties"][name]
        keys.pop("title", None)
        description = _plain(field.description or "")
        inner = section(model, name)
        if "$ref" in keys and inner is not None:
            # A section whose keys are all commented out is null. In draft 7, keys beside $ref are ignored.
            empty = [{"type": "null"}] if model is Recipe else []
            keys = {"anyOf": [{"$ref": keys["$ref"]}, *empty]}
            description = description or _plain(inner.__doc__ or "")
        before = {item.func for item in field.metadata if isinstance(item, BeforeValidator)}
        extra = [{"enum": ["none"]}] if as_unset in before else [{"type": "boolean"}] if as_switch in before else []
        suggested = SUGGESTED.get(name, ())
        if extra or (suggested and keys.get("type") == "string"):
            keys = _any_of([*([{"enum": [*suggested]}] if suggested else []), *_alternatives(keys), *extra], keys)
        elif suggested and "items" in keys:
            keys["items"] = {"anyOf": [{"enum": [*suggested]}, keys["items"]]}
        elif suggested and "anyOf" in keys:
            keys["anyOf"].insert(0, {"enum": [*suggested]})
        default = field.get_default(call_default_factory=True)
        if "default" not in keys and not isinstance(default, BaseModel):
            keys["default"] = default
        schema["properties"][name] = ({"description": description} if description else {}) | {
            key: value for key, value in keys.items() if key != "description"
        }


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    if "anyOf" in schema:
        return list(schema["anyOf"])
    return [{key: value for key, value in schema.items() if key not in ("default", "description")}]


def _any_of(alternatives: list[dict[str, Any]], schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": alternatives} | ({"default": schema["default"]} if "default" in schema else {})


def _argument(name: str, value: Any) -> dict[str, Any]:
    """The schema of a training argument of transformers with its default here."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = {"type": "number"} if is_number else {"type": "boolean"} if isinstance(value, bool) else {}
    description = f"`{name}` of transformers' TrainingArguments; the default is spot's."
    return {"description": description, **kind, "default": value}


def _plain(text: str) -> str:
    """A docstring with one paragraph per line."""
    paragraphs = [" ".join(part.split()) for part in text.replace("``", "`").split("\n\n")]
    return "\n\n".join(part for part in paragraphs if part)
