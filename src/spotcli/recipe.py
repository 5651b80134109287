"""The typed recipe: what an experiment is, in one YAML file.

A setting is declared once, here, and documented under its field; the commands' options, the resolved recipe beside a
result and the reference page come from these declarations. An unknown key is refused with the nearest name. A value is
taken from, in falling order: an option of the command, ``-s key=value``, the recipe, the default; ``Recipe.sources``
remembers from which.
"""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
from pydantic.fields import FieldInfo

Objective = Literal["spot-bco", "spot-bce", "dpo", "reward-sft", "sft", "dft"]
ShiftKind = Literal["ema", "running", "none"]
Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A part of the recipe; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)


class SampleSection(Section):
    """``spot sample``: the policy answers the problems."""

    problems: str = "problems.jsonl"
    """A JSONL, Parquet or CSV file, a built-in set (``builtin:arithmetic``) or a hub data set
    (``hf:org/name[:config][:split]``)."""
    output: str = "samples.jsonl"
    """Where the samples go; inside the run folder for ``spot run``."""
    engine: Literal["auto", "vllm", "transformers", "api"] = "auto"
    """Who generates. ``auto``: ``api`` where ``base_url`` is set, ``vllm`` where it is installed and a GPU is visible,
    else ``transformers``; it says which, and why."""
    trials: Positive = 1
    """Answers for each problem."""
    limit: Positive | None = None
    """Only the first N problems."""
    decontaminate: list[str] = Field(default_factory=list)
    """Leave out problems that these sets hold (named as ``problems`` are, or tasks), and those of ``eval.tasks`` with
    them; ``--decontaminate`` leaves out those of ``eval.tasks`` alone."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 is greedy."""
    top_p: Probability = 0.8
    """Nucleus: the smallest set of tokens with this probability."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Only the k likeliest tokens; 0 is all."""
    max_new_tokens: Positive = 32768
    """An answer is cut here; a cut answer is undecided, never wrong."""
    system: str | None = None
    """A system prompt in front of every problem that has none."""
    instruction: str | None = None
    """Put behind every problem, such as how the final answer is to be written."""
    thinking: Literal["auto", "on", "off"] = "auto"
    """Whether the policy thinks first, by its chat template's own switch; ``auto`` is the template's default."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Handed to the chat template."""
    keep_tokens: bool = False
    """Keep the generated token ids (``response_ids``), so that training uses exactly what was emitted."""
    batch_size: Positive = 64
    """Answers generated at once by the transformers engine."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """``auto``: bfloat16 where the processor computes with it, else float32; for vLLM, what the model says."""
    python: str | None = None
    """The interpreter that has vLLM, where it cannot live beside what trains."""
    workers: Positive | None = None
    """vLLM engines, each in a process of its own; one for each group of ``tensor_parallel`` GPUs when absent."""
    tensor_parallel: Positive = 1
    """GPUs of one vLLM engine."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """More parameters for vLLM's ``LLM``, such as ``max_model_len: 16384``."""
    base_url: str | None = None
    """The address of an OpenAI-compatible endpoint, for the api engine."""
    concurrency: Annotated[int, Field(gt=0, le=500)] = 64
    """Requests to the endpoint in flight at most; halved when it says that it is too much, and raised again."""
    rpm: Annotated[float, Field(gt=0)] | None = None
    """Requests a minute at most."""
    tpm: Annotated[float, Field(gt=0)] | None = None
    """Tokens a minute at most, of prompts and answers."""
    timeout: Annotated[float, Field(gt=0)] = 3600.0
    """Seconds for one answer of the endpoint."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Times that a request is sent again after a passing failure."""
    params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for the endpoint, by litellm's names."""


class RectifySection(Section):
    """``spot rectify``: the oracle repairs the wrong answers."""

    samples: str = "samples.jsonl"
    """The samples to repair."""
    output: str = "data.jsonl"
    """Where the pairs go."""
    oracle: str | None = None
    """A litellm model name (``gpt-4o``, ``gemini/gemini-2.5-pro``), ``symbolic`` or ``human``."""
    mode: Literal["surgery", "direct", "self"] = "surgery"
    """``surgery``: the smallest correction; ``direct``: the oracle's own solutions, for SFT; ``self``: the
    policy's right answers without any oracle, for RFT."""
    then: list[str] = Field(default_factory=list)
    """Oracles that are asked, in this order, about what the one before could not correct."""
    attempts: Annotated[int, Field(gt=0, le=10)] = 1
    """Times that each oracle is asked about one answer; it is told what was wrong with the attempt before."""
    reply: Literal["rewrite", "edits"] = "rewrite"
    """``rewrite``: the whole corrected answer; ``edits``: search/replace hunks, applied by us."""
    reference: bool = True
    """Show the reference answer to the oracle."""
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Keep a pair when its change ratio is at most this."""
    target: Positive | None = None
    """Stop when this many pairs are accepted."""
    max_cost: Annotated[float, Field(ge=0)] | None = None
    """Stop before the oracle costs more than this, in US dollars."""
    price_in: Annotated[float, Field(ge=0)] | None = None
    """US dollars a million prompt tokens, where litellm knows no price."""
    price_out: Annotated[float, Field(ge=0)] | None = None
    """US dollars a million reply tokens, where litellm knows no price."""
    cut: bool = False
    """Correct answers that were cut at the token limit too: they count as wrong then, not as undecided."""
    answer_only: bool = False
    """Accept a correction that changes nothing but the final answer on an unchanged derivation."""
    concurrency: Annotated[int, Field(gt=0, le=500)] = 32
    """Requests in flight at most; halved when the provider says it is too much, and raised again."""
    rpm: Annotated[float, Field(gt=0)] | None = None
    """Requests a minute at most."""
    tpm: Annotated[float, Field(gt=0)] | None = None
    """Tokens a minute at most, of prompts and replies."""
    params: dict[str, Any] = Field(default_factory=dict)
    """More parameters for the provider, by litellm's names, such as ``reasoning_effort: low``."""
    temperature: Annotated[float, Field(ge=0)] | None = None
    """The oracle's temperature; the provider's default when absent."""
    max_tokens: Positive = 16384
    """Reply tokens a request."""
    timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for one request."""
    retries: Annotated[int, Field(ge=0)] = 5
    """Times that a request is sent again after a passing failure."""
    base_url: str | None = None
    """The provider's address, where litellm's environment variables do not name it."""
    tokenizer: str | None = None
    """Whose tokens the change ratio counts; by default the policy's, as the samples' meta file names it."""


class LoraSection(Section):
    """LoRA adapters by peft."""

    r: Positive = 16
    """Rank."""
    alpha: Positive = 32
    """Scaling numerator."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Which modules get an adapter."""


class TrainSection(Section):
    """``spot train``: the policy learns from the pairs.

    Every key of transformers' ``TrainingArguments`` is accepted here beside these (``learning_rate``,
    ``num_train_epochs``, ``per_device_train_batch_size`` ...).
    """

    # The keys of TrainingArguments are checked where transformers is imported: in the train stage.
    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True, validate_default=True)

    data: str = "data.jsonl"
    """The pairs."""
    output: str = "checkpoint"
    """The folder of the trained model; the trainer's checkpoints stand in it."""
    objective: Objective = "spot-bco"
    """The loss; see docs/objectives.md for which to take when."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How tightly the policy is tied to the reference: r = beta * log(pi / pi_ref)."""
    shift: ShiftKind | float = "ema"
    """Reward shift d of spot-bco: ``ema``, ``running`` (the mean of all steps), ``none``, or a number."""
    shift_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Weight of the past in the ``ema`` shift, an optimiser step."""
    max_length: Positive = 8192
    """Pairs with more tokens on one side are dropped and counted, never cut."""
    batch_size: Positive | None = None
    """Pairs of one optimiser step, over all processes and accumulated micro-batches. 32 where neither this nor
    ``per_device_train_batch_size`` or ``gradient_accumulation_steps`` is given; with those alone, their product."""
    tokens_per_micro_batch: Positive | None = None
    """Micro-batches are made up by tokens instead of pairs: none has more than this, so that memory is known
    beforehand. Each step has the same number of them, as few as hold it; what is learned stays the same."""
    share_prefix: Literal["auto"] | bool = "auto"
    """Run the prompt and the common beginning of both answers once. ``auto``: where the model can and it saves work."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of the matrix products; ``auto`` is bfloat16 where the processor computes with it. Weights and
    optimiser state are float32 all the same (with DeepSpeed: its own copies); the result is saved as its source was."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Handed to the chat template; what is not given here is taken from ``sample``, thinking included."""
    check_every: Positive | None = None
    """After so many optimiser steps, and after the last one, the policy answers some of its problems greedily, graded
    and counted; never when absent. What is learned stays the same."""
    check_problems: Positive = 16
    """Problems of a check, out of the pairs that are trained on; those with a reference answer first."""
    lora: LoraSection | None = None
    """Train LoRA adapters and merge nothing; full fine-tuning when absent."""
    quantize: Literal["nf4"] | None = None
    """With LoRA: keep the weights of the frozen model's linear layers in 4 bits (QLoRA), a quarter of the memory, by
    bitsandbytes. The reference is this quantised model."""
    processes: Positive = 1
    """Processes (GPUs) on each machine; more than one are launched by accelerate."""
    nodes: Positive | None = None
    """Machines that train together, with one folder that all see; what Slurm says where absent, else 1."""
    node: Annotated[int, Field(ge=0)] | None = None
    """This machine's number, from 0; Slurm's where absent."""
    main_address: str | None = None
    """HOST or HOST:PORT of machine 0; the first of Slurm's where absent."""
    zero: Literal[0, 2, 3] = 2
    """DeepSpeed ZeRO stage for more than one process; 0 is plain data parallel."""
    fsdp: bool = False
    """PyTorch's FSDP2 instead of ZeRO: weights, gradients and optimiser are divided among the processes."""
    offload: Literal["none", "optimizer", "all"] = "none"
    """What is kept in the machine's own memory instead of the GPU's: the optimiser, or (ZeRO-3, FSDP) weights too.
    Slower; the optimiser is torch's own, so nothing is compiled."""

    @property
    def ranks(self) -> int:
        """Processes that train together."""
        return self.processes * (self.nodes or 1)

    @property
    def training_arguments(self) -> dict[str, Any]:
        """The keys that are transformers' own."""
        return dict(self.model_extra or {})


class EvalSection(Section):
    """``spot eval``: gains, and what they cost."""

    tasks: list[str] = Field(default_factory=lambda: ["arithmetic"])
    """Names of tasks; `spot eval --help` lists them."""
    output: str = "scores"
    """The folder of the scores."""
    trials: Positive | None = None
    """Answers for each problem (k of avg@k); each task's own default when absent."""
    limit: Positive | None = None
    """Only the first N problems of each task."""
    temperature: Annotated[float, Field(ge=0)] = 0.7
    """Sampling temperature; 0 is greedy."""
    top_p: Probability = 0.8
    """Nucleus."""
    top_k: Annotated[int, Field(ge=0)] = 20
    """Only the k likeliest tokens; 0 is all."""
    max_new_tokens: Positive = 32768
    """An answer is cut here and counted as cut."""
    batch_size: Positive = 64
    """Answers generated at once by the transformers engine."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """As in ``sample``."""
    drift: bool = True
    """Measure the mean per-token KL from the base model on neutral prompts (with ``--against``)."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Handed to the chat template; take the values of ``sample``."""


class Recipe(Section):
    """One experiment."""

    name: str = "run"
    """Names the run's folder: runs/NAME."""
    model: str | None = None
    """The policy: a folder, a hub id, or ``builtin:smollm2-135m``."""
    seed: int = 0
    """Every random choice derives from it."""
    grader: str = "math"
    """How answers are graded where a problem does not say: ``math``, ``choice``, ``coordinates``, ``instructions``, or
    a checker of your own, ``package.module:function``."""
    sample: SampleSection = Field(default_factory=SampleSection)
    rectify: RectifySection = Field(default_factory=RectifySection)
    train: TrainSection = Field(default_factory=TrainSection)
    eval: EvalSection = Field(default_factory=EvalSection)

    _sources: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def sources(self) -> dict[str, str]:
        """Dotted key -> ``FILE:LINE``, ``-s key=value`` or ``--option``; a key left at its default is absent."""
        return self._sources


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The section that a key holds; None where it holds a value."""
    field: FieldInfo | None = model.model_fields.get(key)
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def known_keys(section: str) -> list[str]:
    """The keys of a section (``""`` for the recipe itself)."""
    model: type[BaseModel] | None = Recipe
    for part in filter(None, section.split(".")):
        model = _section(model, part) if model else None
    return list(model.model_fields) if model else []


def suggest(key: str, known: list[str]) -> str:
    """A cure for an unknown key: the nearest name, or all of them."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known)}"
