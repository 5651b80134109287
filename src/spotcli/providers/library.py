"""The import of litellm, which takes seconds: without its download, its prints and its warnings."""

from __future__ import annotations

import os
from typing import Any

from spotcli.console import is_verbose
from spotcli.errors import UserError


def provider_names() -> set[str]:
    """Names that litellm accepts as a provider before a model's name."""
    return {str(getattr(provider, "value", provider)) for provider in import_litellm().provider_list}


def import_litellm() -> Any:
    # Otherwise the import downloads a table of prices, and waits for it.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError:
        raise UserError("a model at a provider requires litellm", cure="pip install surgical-post-training") from None
    import logging
    import warnings

    # Pydantic warns about a type of litellm's when a provider is used for the first time.
    warnings.filterwarnings("ignore", message=r"Items? .* on TypedDict class", category=UserWarning)
    # And about each field of a reply that has another type than documented, which it quotes.
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    # It prints to stdout otherwise, which belongs to results.
    litellm.suppress_debug_info = True
    # Its warnings quote requests and replies, and concern what is handled here.
    logging.getLogger("LiteLLM").setLevel(logging.WARNING if is_verbose() else logging.CRITICAL)
    return litellm
