"""The templates: what each is for, its defaults, and its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from spotcli.errors import UserError
from spotcli.recipe import suggest
from spotcli.templates.hardware import Hardware

SMOLLM2 = "builtin:smollm2-135m"
QWEN3 = "Qwen/Qwen3-8B"
DAPO = "hf:BytedTsinghua-SIA/DAPO-Math-17k"
GEMINI = "gemini/gemini-2.5-pro"


@dataclass(frozen=True)
class Template:
    """A recipe with places for the user's answers."""

    name: str
    summary: str
    """What it is for, in one line."""
    file: str
    """Its text, in ``recipes/``."""
    model: str
    problems: str
    oracle: str
    tasks: tuple[str, ...]
    hardware: Hardware | None = None
    """What the recipe is for; None: this machine."""
    prefer_lora: bool = False
    next: tuple[str, ...] = ("spot run {recipe}",)
    """Commands to run then."""


_STAGES = (
    "spot sample --recipe {recipe}",
    "spot rectify --recipe {recipe} --dry-run",
    "spot rectify --recipe {recipe}",
)

TEMPLATES: Mapping[str, Template] = {
    template.name: template
    for template in (
        Template(
            "demo", "all stages on a CPU in minutes: a small built-in model, arithmetic, no key",
            "demo.yaml.jinja", SMOLLM2, "builtin:arithmetic", "symbolic", ("arithmetic",), Hardware(),
        ),
        Template(
            "lora", "LoRA adapters of an 8B model on one GPU of 24 GB",
            "trained.yaml.jinja", QWEN3, DAPO, GEMINI, ("connect4",), Hardware(1, 24, assumed=True), prefer_lora=True,
        ),
        Template(
            "full", "all weights of an 8B model on 8 GPUs of 80 GB, with the paper's settings",
            "trained.yaml.jinja", QWEN3, DAPO, GEMINI, ("connect4",), Hardware(8, 80, assumed=True),
        ),
        Template(
            "api", "samples and corrections from endpoints, without a GPU; train on the pairs elsewhere",
            "api.yaml.jinja", "openrouter/qwen/qwen3-8b", DAPO, GEMINI, (), Hardware(),
            next=(*_STAGES, "spot inspect data.jsonl"),
        ),
        Template(
            "own-problems", "your own file of problems with reference answers, on the GPUs of this machine",
            "trained.yaml.jinja", QWEN3, "problems.jsonl", GEMINI, ("connect4",),
        ),
        Template(
            "reproduce", "the paper's table: the released Qwen3-8B model against its base on nine benchmarks",
            "reproduce.yaml.jinja", "linius/Qwen3-8B-SPoT", "", "", (), Hardware(8, 80, assumed=True),
            next=(
                "spot eval {model} --against Qwen/Qwen3-8B --recipe {recipe} --dry-run",
                "spot eval {model} --against Qwen/Qwen3-8B --recipe {recipe}",
            ),
        ),
    )
}  # fmt: skip


def template_of(name: str) -> Template:
    """Return a template by its name.

    Raises:
        UserError: there is no such template, with the nearest name.
    """
    if name not in TEMPLATES:
        cure = suggest(name, [*TEMPLATES]).replace("known keys", "templates")
        raise UserError(f"unknown template '{name}'", where="--template", cure=cure)
    return TEMPLATES[name]


def rendered(template: Template, values: Mapping[str, Any]) -> str:
    """Return the text of a recipe; every value is written as YAML, and every comment on one line."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    text = (files("spotcli.templates") / "recipes" / template.file).read_text(encoding="utf-8")
    environment = Environment(
        loader=DictLoader({template.file: text}),
        autoescape=False,  # the output is YAML, whose values pass through the filter `yaml`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": _yaml, "comment": _comment}
    return environment.get_template(template.file).render(**values)


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=10**9, allow_unicode=False)
    return text.removesuffix("...\n").strip()


def _comment(text: object) -> str:
    from spotcli.console import one_line

    return one_line(str(text))
