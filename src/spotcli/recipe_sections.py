"""The recipe's sections of ``spot rectify`` and ``spot train``."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from spotcli.recipe_keys import (
    Amount,
    EngineSection,
    Natural,
    Option,
    Positive,
    Probability,
    Rate,
    Section,
    Tokens,
    as_unset,
)

Objective = Literal["spot-bco", "spot-bce", "spot-focal", "dpo", "dpop", "nca", "reward-sft", "sft", "dft"]
ShiftKind = Literal["ema", "running", "none"]


_KEEP: dict[str, Any] = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}, {"type": "null"}]}
"""The JSON schema of ``rectify.keep``."""


def _as_keep(value: object) -> object:
    """``200`` or ``50%``; YAML reads the first as a number.

    Raises:
        ValueError: another value.
    """
    if as_unset(value) is None:
        return None
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}|\d{1,6}(?:\.\d{1,6})?%", text):
        raise ValueError("expected a number of rows such as 200, or a share of the number of pairs such as 50%")
    return text


class PolicySection(EngineSection):
    """``spot rectify --oracle policy``: the policy continues its own wrong answers.

    Keys of the engine that are not set here are those of ``sample``, else those that the samples were made with.
    """

    key: ClassVar[str] = "rectify.policy"

    model: str | None = None
    """The policy; default: the model of the samples."""
    continuations: Annotated[int, Field(gt=0, le=1000), Option("Policy")] = 8
    """With ``--oracle policy``: continuations from each cut."""
    search: Annotated[Literal["sweep", "bisect"], Option("Policy")] = "bisect"
    """With ``--oracle policy``: ``bisect`` halves the steps, and assumes that an earlier cut never helps less; with
    ``sweep``, every step from the last to the first is tried."""
    temperature: Amount | None = 1.0
    """Sampling temperature of the continuations."""
    top_p: Probability | None = 1.0
    """Nucleus sampling of the continuations; 1 is the policy's own distribution."""
    max_new_tokens: Tokens | None = None
    """Tokens of a continuation; default: twice as many as were cut off, and at least 64.

    ``policy-prompted`` is limited by ``rectify.max_tokens``."""


class RectifySection(Section):
    """``spot rectify``: the oracle corrects the wrong answers."""

    samples: Annotated[str, Option("Arguments", argument=True)] = "samples.jsonl"
    """The graded answers, written by ``spot sample``; - reads stdin."""
    output: Annotated[str, Option("Input and output", "FILE", short="-o")] = "data.jsonl"
    """Write the pairs to this file.

    ``spot run`` puts it into the folder of the run."""
    oracle: Annotated[str | None, Option("Oracle", "MODEL", unset="none")] = None
    """A litellm model (``gpt-4o``, ``gemini/gemini-2.5-pro``), ``symbolic``, ``human``, ``policy`` (it continues its
    own answers) or ``policy-prompted`` (it is asked as a model is)."""
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
    keep: Annotated[
        str | None, BeforeValidator(_as_keep), WithJsonSchema(_KEEP), Option("Pairs", "N|P%", unset="none")
    ] = None
    """Add right answers of the policy as rows without y-, at no cost: N rows, or P% of the number of pairs (``50%``).

    Answers to problems near the corrected ones come first. ``train.keep_share`` balances them."""
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
    max_tokens: Annotated[Positive | None, BeforeValidator(as_unset), Option("Requests")] = 16384
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
    batch: Annotated[bool, Option("Batches")] = False
    """Send requests by the provider's batch API: half the price, replies within a day.

    OpenAI, Azure, Anthropic and Gemini have one. Oracles of a ladder that have none are asked as usual."""
    batch_wait: Annotated[Amount | None, Option("Batches", "SECONDS", unset="until they end")] = None
    """Wait so long for batches, then end; the same command picks them up. 0 submits, looks once and ends."""
    batch_size: Annotated[Positive | None, Option("Batches", unset="the provider's limit")] = None
    """Maximum requests per batch."""
    batch_poll: Rate = 10.0
    """Seconds between the first two looks at a batch; the interval grows to 300.

    A batch whose creation was interrupted is looked for during 12 of these before it is created again."""
    tokenizer: Annotated[str | None, Option("Pairs", "MODEL", unset="the policy's")] = None
    """Tokenizer that the change ratio is measured with.

    By default the policy's, as recorded in the meta file of the samples."""
    policy: PolicySection = Field(default_factory=PolicySection)
    """How the oracles ``policy`` and ``policy-prompted`` answer."""


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
    """Reward shift of spot-bco and spot-focal: ``ema``, ``running`` (mean over all training steps), ``none``, or a
    number."""
    shift_decay: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the ``ema`` shift per training step."""
    focal_weight: Amount = 1.0
    """Weight of the term that lowers the rejected answer in spot-focal."""
    focal_tokens: Literal["first", "edited"] = "first"
    """Tokens of the rejected answer that spot-focal lowers: those of its ``first`` error, or all ``edited`` ones."""
    dpop_penalty: Amount = 50.0
    """Penalty of dpop for chosen answers that become less likely than under the reference."""
    kept_weight: Amount = 1.0
    """Weight in sft and dft of tokens that the correction kept; edited tokens have weight 1.

    In rows without a rejected answer every token has weight 1."""
    suffix_weight: Amount | None = None
    """Weight in sft and dft of kept tokens after the first edit; default: ``kept_weight``."""
    kept_kl: Amount = 0.0
    """Tether on kept tokens: weight of an estimate of their KL divergence from the reference, with every objective.

    0 is off. The reference log-probability of every kept token is then cached too."""
    max_length: Positive = 8192
    """Drop and count pairs with more tokens than this on one side; pairs are never truncated."""
    max_bad_rows: Natural | None = None
    """Leave out at most this many invalid rows; the first three are named. Default: 10, and less than half of the rows.
    """
    batch_size: Positive | None = None
    """Pairs per training step, over all processes and accumulated micro-batches.

    Default: the product of ``per_device_train_batch_size``, ``gradient_accumulation_steps`` and the number of
    processes if one of the first two is set, else 32."""
    keep_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the rows of each training step that are right answers without y- (``spot rectify --keep``).

    An epoch goes through the corrections once, and draws right answers in turn. Default: all rows in a random order."""
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
    displacement_every: Literal["auto", "never"] | Positive = "auto"
    """Score right answers to problems that are not trained on every N training steps, and after the last one.

    ``auto``: as often as it takes about 2 % of the work, if there is a file of samples. The training result is
    unchanged."""
    displacement_answers: Positive = 32
    """Answers to score; ``auto`` takes fewer in short runs."""
    displacement_samples: str | None = None
    """Graded samples with such answers. Default: the samples that the pairs were made from, if the file exists."""
    similarity: bool = False
    """Compute how similar the states of both answers of each pair are (CHES), in the pass that computes the reference.

    ``spot inspect`` can sort and filter by it. The training result is unchanged."""
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
    compile_norms: bool = False
    """Compile the norms of the model with torch.compile, which takes less memory traffic on a GPU."""
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
        # YAML reads a bare `no`, a value of `save_strategy` and `logging_strategy`, as false.
        return {
            name: "no" if value is False and name.endswith("_strategy") else value
            for name, value in (self.model_extra or {}).items()
        }
