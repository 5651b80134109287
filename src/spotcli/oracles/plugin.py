"""Oracles of installed packages. What they raise and return is checked like the reply of any provider."""

from __future__ import annotations

import asyncio
import inspect
import math
import threading
from collections.abc import Coroutine
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from spotcli import plugins
from spotcli.console import say
from spotcli.errors import SpotError
from spotcli.oracles import CorrectionRequest
from spotcli.providers.replies import Reply, RequestFailed
from spotcli.records import json_text

if TYPE_CHECKING:
    from spotcli.recipe import RectifySection

FAILED = "plug-in"
"""Kind of the failures that rows are counted by."""
_FINISH_REASONS = ("stop", "length", "filtered", "refused", "declined", "incomplete")
_FIELDS = {name: TypeAdapter(kind) for name, kind in get_type_hints(Reply).items()}


class PluginOracle:
    """The oracle that an installed package registers: its entry point is called with the section ``rectify``.

    It runs on a thread with an event loop of its own, so that it cannot block other oracles or Ctrl-C.

    Raises:
        UserError: the package cannot be imported, or registers no oracle.
    """

    def __init__(self, name: str, settings: RectifySection) -> None:
        self.name = name
        create = plugins.load(plugins.ORACLES, name, key="rectify.oracle")
        try:
            self._oracle: Any = create(settings)
            self.version = str(getattr(self._oracle, "version", "1"))
            self.prompted = bool(getattr(self._oracle, "prompted", False))
            parallel = getattr(self._oracle, "parallel", 1)
        except SpotError:
            raise
        except (Exception, SystemExit) as error:
            raise plugins.failed(plugins.ORACLES, name, error) from error
        if not callable(getattr(self._oracle, "correct", None)):
            message = f"expected an oracle with a method `correct`, got {type(self._oracle).__name__}"
            raise plugins.invalid(plugins.ORACLES, name, message)
        if parallel is not None and (type(parallel) is not int or parallel < 1):
            message = f"expected `parallel` to be a positive integer or None, got {parallel!r}"
            raise plugins.invalid(plugins.ORACLES, name, message)
        self.parallel: int | None = parallel
        self._timeout = settings.timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        say(f"{plugins.place(plugins.ORACLES, name)}")

    async def correct(self, request: CorrectionRequest) -> Reply:
        """The plug-in's reply.

        Raises:
            RequestFailed: the plug-in raised an exception, returned something else than a reply, or took too long.
            SpotError: raised by the plug-in: no request can succeed.
        """
        try:
            reply: Reply = await asyncio.wait_for(self._on_own_thread(self._call(request)), self._timeout)
        except (RequestFailed, SpotError):
            raise
        except TimeoutError:
            raise RequestFailed("time-out", f"no reply within {self._timeout:g} s", retryable=False) from None
        except Exception as error:
            raise RequestFailed(FAILED, f"{type(error).__name__}: {error}", retryable=False) from error
        if problem := _problem_of(reply):
            raise RequestFailed(FAILED, problem, retryable=False)
        return reply

    async def close(self) -> None:
        """Close the plug-in's connections, and end its thread."""
        if self._loop is None:
            return
        try:
            await asyncio.wait_for(self._on_own_thread(self._close()), 5)
        except Exception as error:
            say(f"{self.name}: failed to close: {type(error).__name__}: {error}")
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _call(self, request: CorrectionRequest) -> Any:
        try:
            reply = self._oracle.correct(request)
            return await reply if inspect.isawaitable(reply) else reply
        except SystemExit as error:
            raise RuntimeError(f"it tried to end the program ({error.code})") from None

    async def _close(self) -> None:
        closed = self._oracle.close() if callable(getattr(self._oracle, "close", None)) else None
        if inspect.isawaitable(closed):
            await closed

    def _on_own_thread(self, work: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            # A daemon: an oracle that never returns must not keep the command from ending.
            threading.Thread(target=self._loop.run_forever, name=f"oracle {self.name}", daemon=True).start()
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


def _problem_of(reply: Any) -> str | None:
    """What is wrong with a plug-in's reply; None if it is valid."""
    if not isinstance(reply, Reply):
        return f"expected a spotcli.providers.replies.Reply, got {type(reply).__name__}"
    for field in fields(Reply):
        try:
            value = getattr(reply, field.name)
            _FIELDS[field.name].validate_python(value, strict=True)
            json_text(value if not hasattr(value, "items") else dict(value))
        except (ValidationError, ValueError, TypeError, RecursionError):
            return f"invalid value of `{field.name}` in the reply"
    if reply.finish_reason not in _FINISH_REASONS:
        return f"unknown finish_reason {reply.finish_reason[:40]!r}; known: {', '.join(_FINISH_REASONS)}"
    if reply.cost is not None and not (math.isfinite(reply.cost) and reply.cost >= 0):
        return "invalid value of `cost` in the reply"
    return None
