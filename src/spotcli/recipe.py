"""The typed recipe: every setting of an experiment, declared once.

A setting is a field of a section, documented by the docstring below it. The commands' options (``options.py``), the
resolved recipe beside a result and the reference page are derived from these declarations. An unknown key is refused
with the nearest known name. A value comes from, in order of precedence: an option of the command, ``-s key=value``, the
environment variable of an option, the recipe file, the default. ``Recipe.sources`` records which.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, PrivateAttr
from pydantic.fields import FieldInfo

from spotcli.recipe_keys import UNSET, EngineSection, Natural, Option, Positive, Section, Seed, Tokens
from spotcli.recipe_sections import LoraSection, Objective, PolicySection, RectifySection, ShiftKind, TrainSection

__all__ = [
    "UNSET",
    "EngineSection",
    "EvalSection",
    "LoraSection",
    "Objective",
    "Option",
    "PolicySection",
    "Positive",
    "Recipe",
    "RectifySection",
    "SampleSection",
    "Section",
    "ShiftKind",
    "TrainSection",
    "flag",
    "known_keys",
    "option_of",
    "options",
    "section",
    "suggest",
]


def _is_folder_name(name: str) -> str:
    """Return the name of a run if its folder can be made inside runs/.

    Raises:
        ValueError: the name would lead out of runs/, or no file system accepts it.
    """
    if not name.strip() or name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f-\x9f]", name):
        raise ValueError("expected the name of a folder in runs/, without slashes and control characters")
    if len(name.encode("utf-8", "replace")) > 200:
        raise ValueError("expected a name of at most 200 bytes")
    return name


class SampleSection(EngineSection):
    """``spot sample``: the policy answers the problems."""

    key: ClassVar[str] = "sample"

    problems: Annotated[str, Option("Arguments", argument=True)] = "problems.jsonl"
    """The problem set: a JSONL, Parquet or CSV file, a dataset of the Hugging Face hub
    (``hf:org/name[:config][:split]``) or a built-in set (``builtin:arithmetic``)."""
    output: Annotated[str, Option("Input and output", "FILE", short="-o")] = "samples.jsonl"
    """Write the samples to this file.

    ``spot run`` puts it into the folder of the run."""
    trials: Annotated[Positive, Option("Sampling")] = 1
    """Answers per problem."""
    limit: Annotated[Positive | None, Option("Input and output", unset="all")] = None
    """Only the first N problems."""
    decontaminate: list[str] = Field(default_factory=list)
    """Leave out problems that occur in these sets (named like ``problems``, or evaluation tasks) or in ``eval.tasks``.
    ``--decontaminate`` leaves out only those of ``eval.tasks``."""
    instruction: str | None = None
    """Text appended to every problem, such as the required format of the final answer."""


class TaskSettings(Section):
    """Settings of one evaluation task; keys that are not set keep the task's own value."""

    problems: str | None = None
    """The problem set to use instead of the task's own: a file, or ``hf:org/name[:config][:split]``."""
    grader: str | None = None
    """Grader of problems that name none."""
    trials: Positive | None = None
    """Answers per problem; ``eval.trials`` is used instead if it is set."""
    max_new_tokens: Tokens | None = None
    """Truncate an answer at this many tokens; at most ``eval.max_new_tokens``."""
    instruction: str | None = None
    """Text appended to every prompt; an empty text removes the task's own."""
    group: Literal["in-domain", "OOD", "IFEval", "other"] | None = None
    """The average that the score belongs to."""


class EvalSection(EngineSection):
    """``spot eval``: gains and drift of a trained model.

    A model in a local folder is answered for by a local engine, also if ``base_url`` is set, unless ``engine`` is
    ``api``.
    """

    key: ClassVar[str] = "eval"

    tasks: Annotated[list[str], Option("Evaluation", "NAME", flag="--task")] = Field(
        default_factory=lambda: ["arithmetic"]
    )
    """A task (``aime24``, ``math500``, ``ifeval``, ``connect4`` ...), a problem set (JSONL, Parquet or CSV file,
    ``hf:org/name[:config][:split]``) or a task file (YAML); repeatable.

    docs/evaluation.md lists the tasks."""
    output: Annotated[str, Option("Input and output", "FOLDER", short="-o")] = "scores"
    """Write the scores to this folder.

    ``spot run`` puts it into the folder of the run."""
    trials: Annotated[Positive | None, Option("Evaluation", unset="the task's")] = None
    """Answers per problem: k of avg@k."""
    limit: Annotated[Positive | None, Option("Evaluation", unset="all")] = None
    """Only the first N problems of each task."""
    data_dir: Annotated[str | None, Option("Evaluation", "FOLDER", unset="none")] = None
    """Read published problem sets from files in this folder, such as ``aime24.jsonl``, before the hub is asked."""
    task_settings: dict[str, TaskSettings] = Field(default_factory=dict)
    """Settings of single tasks, by name: ``aime24: {trials: 4}``."""
    margin: Annotated[float, Field(gt=0, le=100), Option("Evaluation")] = 2.0
    """Largest loss, in percentage points, that does not matter in tasks that were not trained.

    A task is kept if a larger loss is excluded."""
    trained: list[str] = Field(default_factory=list)
    """Tasks that the model was trained for; all others test retention. Default: those of the group ``in-domain``, else
    the first task."""
    top_k: Natural = 20
    """Only the k most likely tokens; 0 is all, and an endpoint is sent none."""
    inspect_log: Annotated[bool, Option("Input and output")] = False
    """Write the answers as logs of inspect_ai too, to ``inspect-logs`` in the folder of the scores."""
    drift: bool = True
    """Measure the drift: mean KL divergence per token from the base model on neutral prompts (with ``--against``)."""
    drift_answers: Natural = 64
    """Right answers of the base model to the trained tasks on which drift is measured too; 0 turns this off."""
    drift_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format in which drift is measured; ``auto`` is float32 on the CPU, bfloat16 on a GPU.

    In bfloat16, a drift below about 0.002 nats per token is lost in the rounding; float32 takes 4 bytes per weight."""
    published: Annotated[str | None, Option("Evaluation", "NAME", unset="none")] = None
    """Show these published scores beside the results, such as ``qwen3-8b-spot``.

    docs/reproduction.md lists the names."""


class Recipe(Section):
    """One experiment."""

    name: Annotated[str, AfterValidator(_is_folder_name)] = "run"
    """Name of the run; its folder is runs/NAME."""
    model: Annotated[str | None, Option("Model", "MODEL", unset="none", short="-m")] = None
    """The policy: a folder, a model of the Hugging Face hub or ``builtin:smollm2-135m``."""
    seed: Annotated[Seed, Option("Run")] = 0
    """Seed of every random choice."""
    grader: str = "math"
    """How to grade answers to problems without a ``grader`` field: ``math``, ``choice``, ``coordinates``,
    ``instructions`` or your own ``package.module:function``."""
    sample: SampleSection = Field(default_factory=SampleSection)
    rectify: RectifySection = Field(default_factory=RectifySection)
    train: TrainSection = Field(default_factory=TrainSection)
    eval: EvalSection = Field(default_factory=EvalSection)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> dict[str, str]:
        """Dotted key -> ``FILE:LINE``, ``$SPOT_...``, ``-s key=value`` or ``--option``; defaults are absent."""
        return self._sources


def section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the section that a key contains, or None for a key with a value."""
    field: FieldInfo | None = model.model_fields.get(key)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def known_keys(dotted: str) -> list[str]:
    """Return the keys of a section (``""`` for the recipe itself)."""
    return keys_at(filter(None, dotted.split(".")))


def keys_at(parts: Iterable[str]) -> list[str]:
    """Return the keys of the section that these keys lead to; a name in ``eval.task_settings`` can have dots."""
    *_, (model, any_name) = walk(parts)
    return [] if model is None or any_name else list(model.model_fields)


def walk(parts: Iterable[str]) -> Iterator[tuple[type[BaseModel] | None, bool]]:
    """Yield the section in which each part is a key and, in the end, the one that the last part contains.

    With it, whether any name is a key there, as in ``eval.task_settings``.
    """
    model: type[BaseModel] | None = Recipe
    any_name = False
    for part in parts:
        yield model, any_name
        if any_name:
            any_name = False
        elif model is not None:
            field = model.model_fields.get(part)
            any_name = field is not None and get_origin(field.annotation) is dict and bool(section(model, part))
            model = section(model, part)
    yield model, any_name


def options(key: str) -> dict[str, FieldInfo]:
    """Return the fields that are options of a command, by dotted key.

    Args:
        key: a dotted key, such as ``seed``, or a section, which means all of its options.
    """
    parent, _, name = key.rpartition(".")
    model = _section_of(parent)
    assert model is not None
    inner = section(model, name)
    fields = {f"{key}.{name}": field for name, field in inner.model_fields.items()} if inner else {}
    return {name: field for name, field in (fields or {key: model.model_fields[name]}).items() if option_of(field)}


def _section_of(dotted: str) -> type[BaseModel] | None:
    """Return the section that a dotted key leads to; the recipe itself for an empty one."""
    *_, (model, _) = walk(filter(None, dotted.split(".")))
    return model


def option_of(field: FieldInfo) -> Option | None:
    """Return how a field is declared as an option, or None."""
    return next((item for item in field.metadata if isinstance(item, Option)), None)


def flag(key: str) -> str:
    """Return how a dotted key is given on the command line: ``--max-new-tokens`` or ``argument PROBLEMS``."""
    parent, _, name = key.rpartition(".")
    model = _section_of(parent)
    option = option_of(model.model_fields[name]) if model and name in model.model_fields else None
    if option and option.argument:
        return f"argument {name.upper()}"
    return option.flag if option and option.flag else f"--{name.replace('_', '-')}"


def suggest(key: str, known: list[str]) -> str:
    """Return a cure for an unknown key: the nearest known name, or all of them."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
