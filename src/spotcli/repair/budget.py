"""The cost limit: money is reserved before a request is sent and settled after it."""

from __future__ import annotations

import asyncio
from collections import deque

from spotcli.errors import BudgetReached, UserError
from spotcli.oracles import CorrectionRequest, Oracle
from spotcli.oracles.model import ModelOracle


class Budget:
    """US dollars that may be spent, that are spent, and that are reserved for requests in flight.

    ``spent + reserved`` never exceeds ``limit``. A request whose worst case does not fit waits for those in flight,
    which mostly cost less than their worst case.
    """

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self.reserved = 0.0
        self._open = 0
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()

    async def reserve(self, amount: float) -> None:
        """Reserve money for one request; wait until it fits.

        Raises:
            BudgetReached: no request is in flight and this one still does not fit.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, amount))
        self._serve()
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.settle(amount, 0.0)
            raise

    def settle(self, reserved: float, cost: float) -> None:
        """Release what was reserved for a request, and count what it cost."""
        self._open -= 1
        # Sums of floats drift; without a request in flight nothing is reserved.
        self.reserved = self.reserved - reserved if self._open else 0.0
        self.spent += cost
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            future, amount = self._waiting[0]
            if not future.done():
                if self.limit is None or self.spent + self.reserved + amount <= self.limit:
                    self.reserved += amount
                    self._open += 1
                    future.set_result(None)
                elif self._open:
                    return
                else:
                    future.set_exception(budget_reached(self.limit, self.spent, amount))
            self._waiting.popleft()


def budget_reached(limit: float, spent: float, amount: float) -> BudgetReached:
    """The error for a request that can cost more than what is left; all in US dollars."""
    return BudgetReached(
        f"cost limit: ${spent:.4f} of ${limit:.4f} are spent, and the next request can cost ${amount:.4f}",
        cure="raise --max-cost, or lower rectify.max_tokens; all replies are kept",
    )


def worst_cost(oracle: Oracle, request: CorrectionRequest) -> float:
    """US dollars that must be reserved for a request under a cost limit.

    Raises:
        UserError: the price is unknown.
    """
    if not isinstance(oracle, ModelOracle):
        return 0.0
    worst = oracle.worst_cost(request)
    if worst is None and oracle.longest_reply is None:
        raise UserError(
            f"--max-cost requires a limit of reply tokens, and litellm's table has none for '{oracle.name}'",
            where="rectify.max_tokens",
            cure="set it: --max-tokens 16384",
        )
    if worst is None:
        raise UserError(
            f"--max-cost requires a price, and the price of '{oracle.name}' is unknown",
            where="rectify.max_cost",
            cure="set rectify.price_in and rectify.price_out, in US dollars per million tokens",
        )
    return worst
