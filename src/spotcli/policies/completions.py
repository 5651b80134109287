"""Whether an endpoint can continue a text, and in which form it takes the prompt at ``/v1/completions``.

token ids    as vLLM's server takes them: exactly the tokens that the policy emitted
text         the same as text, which the server tokenizes itself
"""

from __future__ import annotations

import asyncio
from typing import Literal, get_args

from spotcli.errors import Unfinished, UserError
from spotcli.policies import TokenPrefix
from spotcli.providers.litellm import LitellmClient
from spotcli.providers.replies import RequestFailed

PromptForm = Literal["token ids", "text"]
"""How an endpoint takes a prompt that it continues, in the order in which the forms are tried."""
FORMS: tuple[PromptForm, ...] = get_args(PromptForm)

CURE = "use --oracle policy-prompted, or an engine that takes token ids: -s rectify.policy.engine=transformers"


def prompt_in(form: PromptForm, prefix: TokenPrefix) -> list[int] | str:
    """The prompt as the endpoint takes it."""
    return list(prefix.ids) if form == "token ids" else prefix.text


def find_prompt_form(client: LitellmClient, prefix: TokenPrefix, where: str) -> PromptForm:
    """The first form that the endpoint accepts, found with a request for one token.

    Args:
        client: the endpoint.
        prefix: a short prompt.
        where: the endpoint's address, for errors.

    Raises:
        UserError: it has no ``/v1/completions``, or rejects the request.
        Unfinished: it cannot be reached.
    """
    client.check_environment()
    if not client.takes_texts:
        raise UserError("the endpoint has only chats, so it cannot continue an answer", where=where, cure=CURE)
    try:
        return asyncio.run(_first_accepted(client, prefix))
    except RequestFailed as failure:
        if failure.retryable:
            message = f"the endpoint cannot be asked ({failure.kind}: {failure})"
            raise Unfinished(message, where=where, cure="run the same command again later") from None
        message = f"the endpoint cannot continue an answer: it rejects /v1/completions ({failure})"
        raise UserError(message, where=where, cure=CURE) from None


async def _first_accepted(client: LitellmClient, prefix: TokenPrefix) -> PromptForm:
    """The first accepted form.

    Raises:
        RequestFailed: the endpoint accepts none, or does not answer.
        UserError: no request can succeed.
    """
    try:
        for form in FORMS[:-1]:
            try:
                await client.complete(prompt_in(form, prefix), 1)
            except RequestFailed as failure:
                if failure.retryable:
                    raise
            else:
                return form
        await client.complete(prompt_in(FORMS[-1], prefix), 1)
        return FORMS[-1]
    finally:
        await client.close()
