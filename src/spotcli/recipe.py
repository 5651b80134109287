"""The typed recipe: every setting of an experiment, declared once.

A setting is a field of a section, documented by the docstring below it. The commands' options (``options.py``), the
resolved recipe beside a result and the reference page are derived from these declarations. An unknown key is refused
with the nearest known name. A value comes from, in order of precedence: an option of the command, ``-s key=value``, the
recipe file, the default. ``Recipe.sources`` records which.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr
from pydantic.fields import FieldInfo


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


Objective = Literal["spot-bco", "spot-bce", "dpo", "reward-sft", "sft", "dft"]
ShiftKind = Literal["ema", "running", "none"]
Positive = Annotated[int, Field(gt=0)]
Natural = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]
Probability = Annotated[float, Field(gt=0, le=1)]
Tokens = Annotated[int, Field(gt=0, lt=2**24)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's generator takes 32 bits."""


def _as_switch(value: object) -> object:
    """YAML reads ``on`` and ``off`` without quotes as booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _as_unset(value: object) -> object:
    """``none``, as an option is given, and YAML's null are the same."""
    return None if isinstance(value, str) and value.lower() in UNSET else value


UNSET = ("none", "null")
"""Words that leave a setting to the model, as values of options."""


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


class Section(BaseModel):
    """A part of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)


class SampleSection(Section):
    """``spot sample``: the policy answers the problems."""

    problems: Annotated[str, Option("Arguments", argument=True)] = "problems.jsonl"
    """The problem set: a JSONL, Parquet or CSV file, a dataset of the Hugging Face hub
    (``hf:org/name[:config][:split]``) or a built-in set (``builtin:arithmetic``)."""
    output: Annotated[str, Option("Input and output", "FILE", short="-o")] = "samples.jsonl"
    """Write the samples to this file.

    ``spot run`` puts it into the folder of the run."""
    engine: Annotated[Literal["auto", "vllm", "transformers", "api"], Option("Engine")] = "auto"
    """The engine that generates the answers.

    ``auto`` selects ``api`` if ``base_url`` is set, ``vllm`` if it is installed and a GPU is visible, else
    ``transformers``, and prints the choice with its reason."""
    trials: Annotated[Positive, Option("Sampling")] = 1
    """Answers per problem."""
    limit: Annotated[Positive | None, Option("Input and output", unset="all")] = None
    """Only the first N problems."""
    decontaminate: list[str] = Field(default_factory=list)
    """Leave out problems that occur in these sets (named like ``problems``, or evaluation tasks) or in ``eval.tasks``.
    ``--decontaminate`` leaves out only those of ``eval.tasks``."""
    temperature: Annotated[Amount | None, BeforeValidator(_as_unset), Option("Sampling")] = 0.7
    """Sampling temperature; 0 is greedy decoding, ``none`` is the endpoint's own.

    ``null`` sends none to an endpoint, since some models refuse it; other engines use 1 then."""
    top_p: Probability | None = 0.8
    """Nucleus sampling: the smallest set of tokens with this total probability.

    ``null`` sends none to an endpoint, since some models refuse it; other engines use 1 then."""
    top_k: Natural = 0
    """Only the k most likely tokens; 0 is all, and an endpoint is sent none."""
    send_seed: bool = True
    """Send the seed of each answer to the endpoint; some models refuse it."""
    max_new_tokens: Annotated[Tokens | None, BeforeValidator(_as_unset), Option("Sampling")] = 32768
    """Truncate an answer at this many tokens, ``none``: at the endpoint's own limit; a truncated answer is undecided,
    never wrong.

    ``null`` (``none`` as an option) sends no limit to an endpoint; other engines use 32768 then."""
    system: str | None = None
    """System prompt for every problem that has none."""
    instruction: str | None = None
    """Text appended to every problem, such as the required format of the final answer."""
    thinking: Annotated[Literal["auto", "on", "off"], BeforeValidator(_as_switch), Option("Sampling")] = "auto"
    """Thinking mode of the chat template; ``auto`` is the template's default."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the chat template."""
    keep_tokens: Annotated[bool, Option("Sampling")] = False
    """Keep the generated token ids (``response_ids``), so that training uses exactly these tokens."""
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
    """Base URL of an OpenAI-compatible endpoint; selects the api engine."""
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


class RectifySection(Section):
    """``spot rectify``: the oracle corrects the wrong answers."""

    samples: Annotated[str, Option("Arguments", argument=True)] = "samples.jsonl"
    """The graded answers, written by ``spot sample``; - reads stdin."""
    output: Annotated[str, Option("Input and output", "FILE", short="-o")] = "data.jsonl"
    """Write the pairs to this file.

    ``spot run`` puts it into the folder of the run."""
    oracle: Annotated[str | None, Option("Oracle", "MODEL", unset="none")] = None
    """A litellm model (``gpt-4o``, ``gemini/gemini-2.5-pro``), ``symbolic`` or ``human``."""
    mode: Annotated[Literal["surgery", "direct", "self"], Option("Pairs")] = "surgery"
    """``surgery``: smallest corrections; ``direct``: the oracle's own solutions, for SFT; ``self``: the policy's right
    answers without an oracle, for RFT."""
    then: Annotated[list[str], Option("Oracle", "MODEL", unset="none")] = Field(default_factory=list)
    """The next oracle for answers that the one before failed to correct; repeatable."""
    attempts: Annotated[int, Field(gt=0, le=10), Option("Oracle")] = 1
    """Attempts per answer and oracle; each prompt includes the error of the previous attempt."""
    reply: Annotated[Literal["rewrite", "edits"], Option("Oracle")] = "rewrite"
    """``rewrite``: the oracle writes the whole corrected answer; ``edits``: it writes search/replace hunks."""
    reference: Annotated[bool, Option("Prompt")] = True
    """Show the reference answer to the oracle."""
    gamma: Annotated[float, Field(ge=0, le=1), Option("Pairs")] = 0.6
    """Maximum change ratio of an accepted pair."""
    max_deleted: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Maximum share of the policy's answer that a correction may delete; the change ratio does not count deletions."""
    target: Annotated[Positive | None, Option("Pairs", unset="all")] = None
    """Stop after N accepted pairs."""
    max_cost: Annotated[Amount | None, Option("Money", "USD", unset="no limit")] = None
    """Stop before the oracle costs more than this many US dollars."""
    price_in: Annotated[Amount | None, Option("Money", "USD", unset="litellm's")] = None
    """US dollars per million prompt tokens, if litellm does not know the price."""
    price_out: Annotated[Amount | None, Option("Money", "USD", unset="litellm's")] = None
    """US dollars per million reply tokens, if litellm does not know the price."""
    cut: Annotated[bool, Option("Pairs")] = False
    """Correct truncated answers too: count them as wrong, not as undecided."""
    answer_only: bool = False
    """Accept a correction that changes only the final answer and leaves the derivation as it was."""
    concurrency: Annotated[int, Field(gt=0, le=500), Option("Requests")] = 32
    """Maximum number of simultaneous requests.

    It is halved when the provider reports overload, and raised again later."""
    rpm: Annotated[Rate | None, Option("Requests", unset="no limit")] = None
    """Maximum requests per minute."""
    tpm: Annotated[Rate | None, Option("Requests", unset="no limit")] = None
    """Maximum tokens per minute, prompts and replies together."""
    params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for the provider, by litellm's names, such as ``reasoning_effort: low``."""
    temperature: Annotated[Amount | None, Option("Oracle", unset="the provider's")] = None
    """Sampling temperature of the oracle."""
    max_tokens: Annotated[Positive | None, BeforeValidator(_as_unset), Option("Requests")] = 16384
    """Maximum reply tokens per request; ``none``: the model's own limit.

    ``null`` (``none`` as an option) sends no limit; with a cost limit, litellm's table must have the model's own."""
    timeout: Rate = 600.0
    """Seconds until a request times out."""
    retries: Natural = 5
    """How often a request is sent again after a transient failure."""
    max_wait: Rate = 600.0
    """Longest pause in seconds that the provider may ask for; a longer one ends the run, and the same command resumes
    it."""
    base_url: Annotated[str | None, Option("Oracle", "URL", unset="litellm's")] = None
    """Base URL of the provider, if litellm's environment variables do not set it."""
    tokenizer: Annotated[str | None, Option("Pairs", "MODEL", unset="the policy's")] = None
    """Tokenizer that the change ratio is measured with.

    By default the policy's, as recorded in the meta file of the samples."""


class LoraSection(Section):
    """LoRA adapters by peft.

    Keys of peft's ``LoraConfig`` are accepted beside these (``use_rslora``, ``modules_to_save``, ``use_dora`` ...).
    """

    # The keys of LoraConfig are checked where peft is imported: in the train stage.
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, validate_default=True)

    r: Positive = 16
    """Rank."""
    alpha: Positive = 32
    """Scaling numerator: the adapter's output is multiplied by ``alpha / r``."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Modules that get an adapter."""

    @property
    def peft_arguments(self) -> dict[str, Any]:
        """The keys that belong to peft's ``LoraConfig``."""
        return dict(self.model_extra or {})


class TrainSection(Section):
    """``spot train``: the policy learns from the pairs.

    Every key of transformers' ``TrainingArguments`` is accepted beside these (``learning_rate``,
    ``num_train_epochs``, ``per_device_train_batch_size`` ...).
    """

    # The keys of TrainingArguments are checked where transformers is imported: in the train stage.
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False)

    data: str = "data.jsonl"
    """The file of pairs."""
    output: str = "checkpoint"
    """Folder of the trained model and of the checkpoints during training."""
    objective: Objective = "spot-bco"
    """The loss; docs/objectives.md compares them."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Reward scale: r = beta * log(pi / pi_ref). A larger value keeps the policy closer to the reference."""
    shift: ShiftKind | float = "ema"
    """Reward shift of spot-bco: ``ema``, ``running`` (mean over all training steps), ``none`` or a number."""
    shift_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the ``ema`` shift per training step."""
    max_length: Positive = 8192
    """Drop and count pairs with more tokens than this on one side; pairs are never truncated."""
    max_bad_rows: Natural | None = None
    """Leave out at most this many invalid rows; the first three are named. Default: 10, and less than half of the rows.
    """
    batch_size: Positive | None = None
    """Pairs per training step, over all processes and accumulated micro-batches.

    Default: the product of ``per_device_train_batch_size``, ``gradient_accumulation_steps`` and the number of
    processes if one of the first two is set, else 32."""
    tokens_per_micro_batch: Positive | None = None
    """Maximum tokens per micro-batch: micro-batches are filled by tokens instead of pairs, so that memory is bounded.

    Every training step has the same, smallest possible number of micro-batches. The gradient is unchanged."""
    share_prefix: Literal["auto"] | bool = "auto"
    """Compute the prompt and the common prefix of both answers once; ``auto``: if the model supports it and it saves
    work."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the matrix products; ``auto`` is bfloat16 if the processor computes in it.

    Weights and optimizer state are float32 in any case (DeepSpeed keeps its own copies)."""
    save_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the saved weights; ``auto`` is that of the starting policy's weights."""
    rounding: Literal["nearest", "stochastic"] = "stochastic"
    """How float32 weights are rounded to fewer bits: for the products of each training step, and for the file.

    ``nearest`` hides small updates: at a small learning rate, training does not see most of them and the saved model
    does not have them. ``stochastic`` keeps them on average."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the chat template; keys missing here are taken from ``sample``, including its thinking mode."""
    check_every: Positive | None = None
    """Generate, grade and count answers every N training steps and after the last one; by default never.

    Answers are generated greedily. The training result is unchanged."""
    check_problems: Positive = 16
    """Problems per check, taken from the training pairs; problems with a reference answer come first."""
    lora: LoraSection | None = None
    """Train LoRA adapters and save them unmerged; by default all weights are trained.

    If ``model`` is the folder of an adapter, that adapter is trained on."""
    quantize: Literal["nf4"] | None = None
    """Store the frozen model's linear layers at 4 bits per weight (QLoRA, by bitsandbytes); requires ``lora``.

    The reference policy is the quantized model."""
    processes: Positive = 1
    """Processes (GPUs) per machine; accelerate launches more than one."""
    nodes: Positive | None = None
    """Machines that train together on one shared folder; default: Slurm's value, else 1."""
    node: Natural | None = None
    """Index of this machine, from 0; default: Slurm's value."""
    main_address: str | None = None
    """HOST or HOST:PORT of machine 0; default: the first host of Slurm's list."""
    zero: Literal[0, 2, 3] = 2
    """DeepSpeed ZeRO stage for several processes; 0 is plain data parallelism."""
    fsdp: bool = False
    """Use PyTorch's FSDP2 instead of ZeRO: weights, gradients and optimizer state are sharded."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """Keep the optimizer state (``optimizer``), or with ZeRO-3 and FSDP also the weights (``all``), in CPU memory.

    This is slower. It uses torch's own optimizer, so that nothing is compiled."""

    @property
    def ranks(self) -> int:
        """Number of processes that train together."""
        return self.processes * (self.nodes or 1)

    @property
    def training_arguments(self) -> dict[str, Any]:
        """The keys that belong to transformers' ``TrainingArguments``."""
        return dict(self.model_extra or {})


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


class EvalSection(Section):
    """``spot eval``: gains and drift of a trained model."""

    tasks: Annotated[list[str], Option("Evaluation", "NAME", flag="--task")] = Field(
        default_factory=lambda: ["arithmetic"]
    )
    """A task (``aime24``, ``math500``, ``ifeval``, ``connect4`` ...), a problem set (JSONL, Parquet or CSV file,
    ``hf:org/name[:config][:split]``) or a task file (YAML); repeatable.

    docs/evaluation.md lists the tasks."""
    data_dir: Annotated[str | None, Option("Evaluation", "FOLDER", unset="none")] = None
    """Read published problem sets from files in this folder, such as ``aime24.jsonl``, before the hub is asked."""
    task_settings: dict[str, TaskSettings] = Field(default_factory=dict)
    """Settings of single tasks, by name: ``aime24: {trials: 4}``."""
    output: Annotated[str, Option("Input and output", "FOLDER", short="-o")] = "scores"
    """Write the scores to this folder.

    ``spot run`` puts it into the folder of the run."""
    trials: Annotated[Positive | None, Option("Evaluation", unset="the task's")] = None
    """Answers per problem: k of avg@k."""
    limit: Annotated[Positive | None, Option("Evaluation", unset="all")] = None
    """Only the first N problems of each task."""
    temperature: Amount = 0.7
    """Sampling temperature; 0 is greedy decoding."""
    top_p: Probability = 0.8
    """Nucleus sampling: the smallest set of tokens with this total probability."""
    top_k: Natural = 20
    """Only the k most likely tokens; 0 is all."""
    max_new_tokens: Tokens = 32768
    """Truncate an answer at this many tokens and count it as truncated."""
    batch_size: Positive = 64
    """Answers that the transformers engine generates at once."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of the weights, as in ``sample``."""
    drift: bool = True
    """Measure the drift: mean KL divergence per token from the base model on neutral prompts (with ``--against``)."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the chat template; use the values of ``sample``."""


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
        """Dotted key -> ``FILE:LINE``, ``-s key=value`` or ``--option``; keys with their default are absent."""
        return self._sources


def section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """Return the section that a key contains, or None for a key with a value."""
    field: FieldInfo | None = model.model_fields.get(key)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def known_keys(dotted: str) -> list[str]:
    """Return the keys of a section (``""`` for the recipe itself)."""
    model: type[BaseModel] | None = Recipe
    for part in filter(None, dotted.split(".")):
        model = section(model, part) if model else None
    return list(model.model_fields) if model else []


def options(key: str) -> dict[str, FieldInfo]:
    """Return the fields that are options of a command, by dotted key.

    Args:
        key: a key of the recipe, such as ``seed``, or a section, which means all of its options.
    """
    inner = section(Recipe, key)
    fields = {f"{key}.{name}": field for name, field in inner.model_fields.items()} if inner else {}
    return {name: field for name, field in (fields or {key: Recipe.model_fields[key]}).items() if option_of(field)}


def option_of(field: FieldInfo) -> Option | None:
    """Return how a field is declared as an option, or None."""
    return next((item for item in field.metadata if isinstance(item, Option)), None)


def flag(key: str) -> str:
    """Return how a dotted key is given on the command line: ``--max-new-tokens`` or ``argument PROBLEMS``."""
    parent, _, name = key.rpartition(".")
    model = section(Recipe, parent) if parent else Recipe
    option = option_of(model.model_fields[name]) if model and name in model.model_fields else None
    if option and option.argument:
        return f"argument {name.upper()}"
    return option.flag if option and option.flag else f"--{name.replace('_', '-')}"


def suggest(key: str, known: list[str]) -> str:
    """Return a cure for an unknown key: the nearest known name, or all of them."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(known)}"
