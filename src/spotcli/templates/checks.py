"""What can be wrong with the answers: errors for what never works, warnings for what is missing now."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from spotcli.console import say
from spotcli.dataset_lines import close_name
from spotcli.errors import UserError, install_command
from spotcli.oracles.by_name import BUILTIN
from spotcli.plugins import ORACLES, registered
from spotcli.problems.sources import iter_problems
from spotcli.providers.library import provider_names
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.settings import ProviderSettings
from spotcli.templates.answers import LOCAL_SERVER, Answers
from spotcli.templates.catalog import SMOLLM2


def is_served(model: str) -> bool:
    """Whether a name begins with a provider, such as ``openrouter/qwen/qwen3-8b``."""
    return "/" in model and not Path(model).expanduser().exists() and model.partition("/")[0] in provider_names()


def check_problems(answers: Answers) -> Iterator[str]:
    """Yield warnings about the problem set.

    Raises:
        UserError: an unknown built-in set, or the file is no problem set.
        DataError: its first row is invalid.
    """
    if answers.problem_file and not Path(answers.problem_file).exists():
        near = close_name(Path(answers.problem_file))
        yield f"{answers.problem_file}: the file does not exist yet" + (f"; did you mean '{near}'?" if near else "")
    elif answers.problems and not answers.problems.startswith("hf:"):
        first = next(iter_problems(answers.problems, folder=Path(), seed=0, limit=1, quiet=True))
        if first.reference is None:
            yield f"{answers.problems}: the first problem has no reference answer; its answers will be undecided"


def check_model(answers: Answers) -> Iterator[str]:
    """Yield warnings about the model; the hub is not asked.

    Raises:
        UserError: an unknown built-in model.
    """
    name = answers.model
    if name.startswith("builtin:") and name != SMOLLM2:
        raise UserError(f"unknown built-in model '{name}'", where="--model", cure=f"available: {SMOLLM2}")
    path = Path(name).expanduser()
    if path.is_dir() and not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
        yield f"{name}: the folder has no model (config.json is missing)"
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_path and not path.is_dir() and answers.template.name != "api":
        yield f"{name}: model folder not found"
    if answers.base_url == LOCAL_SERVER:
        yield f"a server is expected at {LOCAL_SERVER}: vllm serve {name}"


def check_key(model: str, key: str) -> tuple[str | None, str | None]:
    """Return the environment variable of a provider's key, and a warning if the environment lacks it.

    Args:
        model: a model by litellm's name, or another oracle, which has no key.
        key: the recipe's key or the option that named it, for the error.

    Raises:
        UserError: an unknown provider.
    """
    plugged = registered(ORACLES)
    if not model or model in BUILTIN or model in plugged:
        return None, None
    say(f"{key}: looking up {model}")
    client = LitellmClient(model, ProviderSettings(model_key=key))
    try:
        client.check_environment(known_names=(*BUILTIN, *plugged))
    except UserError as error:
        if error.where == key:
            raise
        names = re.findall(r"[A-Z][A-Z0-9_]+", f"{error.where} {error.cure}")
        variable = next((name for name in names if name.endswith(("_KEY", "_BASE", "_TOKEN", "_ID"))), None)
        return variable, f"{error.message}: {error.cure}"
    variable = f"{client.provider.upper()}_API_KEY"
    return (variable if variable in os.environ else None), None


def check_packages(text: str) -> Iterator[str]:
    """Yield warnings about packages that the stages of a recipe require.

    Args:
        text: the recipe.
    """
    if "\ntrain:" in text and not (find_spec("torch") and find_spec("transformers")):
        yield f"training requires packages that are not installed: {install_command('train')}"
    if "quantize: nf4" in text and not find_spec("bitsandbytes"):
        yield f"train.quantize requires bitsandbytes: {install_command('qlora')}"
