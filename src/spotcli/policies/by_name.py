"""Load the policy of an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from spotcli import plugins
from spotcli.errors import require
from spotcli.policies import Policy, Sampling
from spotcli.recipe_keys import ENGINES

if TYPE_CHECKING:
    from spotcli.recipe import EngineSection


def check_engine(engine: str, settings: EngineSection) -> None:
    """Check that the packages of an engine are installed, before anything is written.

    Raises:
        UserError: a package is missing or cannot be imported, or the interpreter of ``python`` is not found.
    """
    if engine not in ENGINES:
        plugins.load(plugins.ENGINES, engine, key=f"{settings.key}.engine")
        return
    plugins.warn_if_shadowed(plugins.ENGINES, engine)
    if engine == "vllm":
        from spotcli.policies.vllm import check_installed

        check_installed(settings)
    if engine == "api":
        require("all", "the api engine", "litellm")
    else:
        require("train", f"the {engine} engine", "torch", "transformers")


def check_endpoint(engine: str, model: str, sampling: Sampling, settings: EngineSection) -> None:
    """Check, without a request, that an endpoint can be asked; other engines have none.

    Raises:
        UserError: an unknown provider, a missing key or a missing address.
    """
    if engine == "api":
        from spotcli.policies.api import ApiPolicy

        ApiPolicy(model, sampling, settings).check_environment()


def load_policy(engine: str, model: str, sampling: Sampling, settings: EngineSection, *, log: Path) -> Policy:
    """Load the policy of an engine; the engine's packages are imported here.

    Args:
        engine: ``vllm``, ``api``, ``transformers``, or the name of an installed package's engine.
        model: a folder or a hub id; the model's name at the endpoint for ``api``.
        sampling: the parameters of every answer.
        settings: the ``sample`` or the ``eval`` section.
        log: the output of the stage; worker logs are written next to it.

    Raises:
        UserError: the engine is not installed, or the model is not found.
    """
    match engine:
        case "vllm":
            from spotcli.policies.vllm import VllmPolicy

            return VllmPolicy(model, sampling, settings, log=log)
        case "api":
            from spotcli.policies.api import ApiPolicy

            return ApiPolicy(model, sampling, settings)
        case _ if engine not in ENGINES:
            from spotcli.policies.plugin import PluginPolicy

            return PluginPolicy(engine, model, sampling, settings, log=log)
        case _:
            from spotcli.policies.transformers import TransformersPolicy

            return TransformersPolicy.load(
                model,
                sampling,
                batch_size=settings.batch_size,
                dtype=settings.dtype,
                chat_template_kwargs=settings.chat_template_kwargs,
                thinking=settings.thinking,
            )
