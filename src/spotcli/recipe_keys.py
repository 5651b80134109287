"""What the recipe's sections are made of: how a field is declared, the types of values, and the keys of an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from spotcli import plugins


@dataclass(frozen=True)
class Option:
    """Makes a field an option of its command; the first paragraph of the field's docstring is the help text."""

    panel: str
    """Heading in the help."""
    placeholder: str | None = None
    """What the help shows for the value; by default derived from the type (``N``, ``X``, ``NAME`` or ``TEXT``)."""
    unset: str | None = None
    """What the help shows as the default of a field whose default is null or empty."""
    flag: str | None = None
    """By default ``--`` and the field's name with dashes."""
    short: str | None = None
    """A second flag of one letter, such as ``-m``."""
    argument: bool = False
    """The value is given by position and not by a flag."""
    choices: Callable[[], Sequence[str]] | None = None
    """The valid values, where they depend on what is installed."""


Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, le=1)]
Tokens = Annotated[int, Field(gt=0, lt=2**24)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's generator takes 32 bits."""


def as_switch(value: object) -> object:
    """YAML reads ``on`` and ``off`` without quotes as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def as_unset(value: object) -> object:
    """``none``, as an option is given, and YAML's null are the same."""
    return None if isinstance(value, str) and value.lower() in UNSET else value


def engines() -> list[str]:
    """The names of engines: the built-in ones, and those of installed packages."""
    return list(dict.fromkeys([*ENGINES, *plugins.registered(plugins.ENGINES)]))


def _is_engine(name: str) -> str:
    *others, last = engines()
    if name not in (*others, last):
        raise ValueError(f"input should be {', '.join(map(repr, others))} or {last!r}")
    return name


ENGINES = ("auto", "vllm", "transformers", "api")
"""The built-in engines."""

UNSET = ("none", "null")
"""Words that leave a setting to the model, as values of options."""


class Section(BaseModel):
    """A part of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)


class EngineSection(Section):
    """How a model answers: the engine that generates, and its sampling parameters."""

    key: ClassVar[str]
    """The section's key in the recipe, for messages."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """List a section's own keys before those that it shares with other sections, in help and in recipes."""
        own = {name: cls.model_fields[name] for name in cls.__annotations__ if name in cls.model_fields}
        cls.__pydantic_fields__ = own | cls.model_fields
        cls.model_rebuild(force=True)

    engine: Annotated[str, AfterValidator(_is_engine), Option("Engine", choices=engines)] = "auto"
    """The engine that generates the answers.

    ``auto`` selects ``api`` if ``base_url`` is set, ``vllm`` if it is installed and a GPU is visible, else
    ``transformers``, and prints the choice with its reason. Installed packages can register more engines."""
    temperature: Annotated[Amount | None, BeforeValidator(as_unset), Option("Sampling")] = 0.7
    """Sampling temperature; 0 is greedy decoding, ``none`` is the endpoint's own.

    ``null`` sends none to an endpoint, since some models refuse it; other engines use 1 then."""
    top_p: Probability | None = 0.8
    """Nucleus sampling: the smallest set of tokens with this total probability.

    ``null`` sends none to an endpoint, since some models refuse it; other engines use 1 then."""
    top_k: Natural = 0
    """Only the k most likely tokens; 0 is all, and an endpoint is sent none."""
    send_seed: bool = True
    """Send the seed of each answer to the endpoint; some models refuse it."""
    max_new_tokens: Annotated[Tokens | None, BeforeValidator(as_unset), Option("Sampling")] = 32768
    """Truncate an answer at this many tokens, ``none``: at the endpoint's own limit; a truncated answer is undecided,
    never wrong.

    ``null`` (``none`` as an option) sends no limit to an endpoint; other engines use 32768 then."""
    system: str | None = None
    """System prompt for every problem that has none."""
    thinking: Annotated[Literal["auto", "on", "off"], BeforeValidator(as_switch), Option("Sampling")] = "auto"
    """Thinking mode of the chat template; ``auto`` is the template's default."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the chat template."""
    keep_tokens: Annotated[bool, Option("Sampling")] = False
    """Keep the generated token ids (``response_ids``), so that later stages use exactly these tokens."""
    batch_size: Positive = 64
    """Answers that the transformers engine generates at once."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the weights. ``auto`` is bfloat16 if the processor computes in it, else float32; with vLLM, the
    model's own."""
    python: Annotated[str | None, Option("Engine", "FILE", unset="this one")] = None
    """Python interpreter of the environment that has vLLM."""
    workers: Annotated[Positive | None, Option("Engine", unset="one per GPU")] = None
    """vLLM engines, one process each.

    By default one per group of ``tensor_parallel`` GPUs."""
    tensor_parallel: Positive = 1
    """GPUs per vLLM engine."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """More arguments for vLLM's ``LLM``, such as ``max_model_len: 16384``."""
    base_url: Annotated[str | None, Option("Engine", "URL", unset="none")] = None
    """Base URL of an OpenAI-compatible endpoint; selects the api engine.

    ``spot eval`` asks it for models that are no local folders."""
    concurrency: Annotated[int, Field(gt=0, le=500), Option("Engine")] = 64
    """Maximum number of simultaneous requests to the endpoint.

    It is halved when the endpoint reports overload, and raised again later."""
    rpm: Rate | None = None
    """Maximum requests per minute."""
    tpm: Rate | None = None
    """Maximum tokens per minute, prompts and answers together."""
    timeout: Rate = 3600.0
    """Seconds until a request to the endpoint times out."""
    retries: Natural = 5
    """How often a request is sent again after a transient failure."""
    max_wait: Rate = 600.0
    """Longest pause in seconds that the endpoint may ask for; a longer one ends the run, and the same command resumes
    it."""
    params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for the endpoint, by litellm's names."""
