"""Engines of installed packages. What they raise and yield is checked: one bad answer is one failed request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spotcli import plugins
from spotcli.errors import SpotError, UserError
from spotcli.policies import Answer, EngineFacts, Failure, Request, Sampling

if TYPE_CHECKING:
    from spotcli.recipe import EngineSection

MOST_FAILURES = 10
"""So many exceptions in a row without an answer mean that the engine does not work."""


class PluginPolicy:
    """The engine that an installed package registers.

    Its entry point is called with the model, the ``Sampling`` and the section, and ``log`` by name; it returns an
    object with ``answers(requests)``, which yields an ``Answer`` or a ``Failure`` for each request.

    Raises:
        UserError: the package cannot be imported, or registers no engine.
    """

    background = False
    trials_together = False

    def __init__(self, name: str, model: str, sampling: Sampling, settings: EngineSection, *, log: Path) -> None:
        create = plugins.load(plugins.ENGINES, name, key=f"{settings.key}.engine")
        try:
            self._engine: Any = create(model, sampling, settings, log=log)
        except SpotError:
            raise
        except (Exception, SystemExit) as error:
            raise plugins.failed(plugins.ENGINES, name, error) from error
        if not callable(getattr(self._engine, "answers", None)):
            message = f"expected an engine with a method `answers`, got {type(self._engine).__name__}"
            raise plugins.invalid(plugins.ENGINES, name, message)
        self.engine = name
        self._stopped = False

    def facts(self, first: Request) -> EngineFacts:
        return EngineFacts(prompts=None)

    def answers(
        self, requests: Iterable[Request], total: int, done: Callable[[Request], bool]
    ) -> Iterator[list[Answer | Failure]]:
        """Yield the engine's answers one by one; after an exception, go on with the next request.

        Raises:
            UserError: many exceptions in a row.
        """
        open_requests: dict[Any, Request] = {}

        def asked() -> Iterator[Request]:
            for request in source:
                if self._stopped:
                    return
                if not done(request):
                    open_requests[request.key] = request
                    yield request

        source, failures = iter(requests), 0
        while not self._stopped:
            reason = "the plug-in gave no answer"
            try:
                for item in self._engine.answers(asked()):
                    checked = _checked(item, open_requests)
                    if checked is not None:
                        failures = 0 if isinstance(checked, Answer) else failures
                        yield [checked]
            except SpotError:
                raise
            except (Exception, SystemExit) as error:
                reason = f"the plug-in raised {type(error).__name__}"
                failures += 1
                self._give_up(failures, error)
            unanswered: list[Answer | Failure] = [Failure(request, reason) for request in open_requests.values()]
            open_requests.clear()
            if not unanswered:
                return
            yield unanswered

    def _give_up(self, failures: int, error: BaseException) -> None:
        """Raise the error for an engine that does not work, after many exceptions in a row.

        Raises:
            UserError: there were too many.
        """
        if failures >= MOST_FAILURES:
            message = f"{failures} exceptions in a row; the last one: {type(error).__name__}: {error}"
            where = plugins.place(plugins.ENGINES, self.engine)
            raise UserError(message, where=where, cure="update the package, or use another engine") from error

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        """End the engine, where it can be ended."""
        if callable(getattr(self._engine, "close", None)):
            self._engine.close()


def _checked(item: Any, open_requests: dict[Any, Request]) -> Answer | Failure | None:
    """An answer whose values are valid, a failure otherwise; None for an answer that nobody waits for."""
    if not isinstance(item, Answer | Failure):
        return None
    request = open_requests.pop(getattr(item.request, "key", None), None)
    if request is None:
        return None
    if isinstance(item, Failure):
        return Failure(request, str(item.reason)[:80])
    ids = item.token_ids
    is_valid = (
        isinstance(item.response, str)
        and item.finish_reason in ("stop", "length")
        and (ids is None or (isinstance(ids, list) and all(type(token) is int for token in ids)))
        and all(type(number) is int and number >= 0 for number in (item.tokens, item.max_new_tokens))
        and (item.reasoning is None or isinstance(item.reasoning, str))
    )
    if not is_valid:
        return Failure(request, "invalid answer of the plug-in")
    return Answer(
        request, item.response, item.finish_reason, ids, item.tokens, item.max_new_tokens, reasoning=item.reasoning
    )
