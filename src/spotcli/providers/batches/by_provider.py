"""The batch API of a model, by its provider."""

from __future__ import annotations

from spotcli.providers.batches.api import BatchApi
from spotcli.providers.batches.client import BatchClient
from spotcli.providers.library import import_litellm
from spotcli.providers.settings import ProviderSettings

OPENAI_LIKE = ("openai", "azure", "hosted_vllm", "litellm_proxy")
"""Providers whose batches are files, as OpenAI's are."""

WITH_BATCHES = (*OPENAI_LIKE, "anthropic", "gemini")
"""Providers, by litellm's names, that have a batch API which is used here."""


def provider_of(model: str, base_url: str | None) -> str | None:
    """litellm's name of a model's provider; None for a model that it does not know."""
    litellm = import_litellm()
    try:
        return str(litellm.get_llm_provider(model=model, api_base=base_url if "/" not in model else None)[1])
    except litellm.BadRequestError:
        return None


def batch_client(model: str, settings: ProviderSettings) -> BatchClient | None:
    """The client for batches of a model; None if its provider has no batch API."""
    provider = provider_of(model, settings.base_url)
    api: BatchApi
    if provider in OPENAI_LIKE:
        from spotcli.providers.batches.files import FileBatches

        api = FileBatches(model, settings, provider)
    elif provider == "anthropic":
        from spotcli.providers.batches.anthropic import AnthropicBatches

        api = AnthropicBatches(model, settings)
    elif provider == "gemini":
        from spotcli.providers.batches.gemini import GeminiBatches

        api = GeminiBatches(model, settings)
    else:
        return None
    return BatchClient(model, settings, api)
