"""The cost limit."""

from __future__ import annotations

import asyncio

import pytest

from spotcli.errors import BudgetReached
from spotcli.repair.budget import Budget


def test_the_limit_holds_with_many_requests_in_flight() -> None:
    async def work() -> None:
        budget, most, refused = Budget(1.0), 0.0, 0

        async def request() -> None:
            nonlocal most, refused
            try:
                await budget.reserve(0.3)
            except BudgetReached:
                refused += 1
                return
            most = max(most, budget.spent + budget.reserved)
            await asyncio.sleep(0.001)
            budget.settle(0.3, 0.2)

        await asyncio.gather(*(request() for _ in range(10)))
        # Three at once reserve 0.9, and each costs 0.2. The fourth waits (0.2 + 0.6 + 0.3 > 1) until two are settled
        # (0.4 + 0.3 + 0.3); after it 0.8 are spent, and 0.8 + 0.3 > 1.
        assert most <= 1.0
        assert budget.spent == pytest.approx(0.8)
        assert refused == 6

    asyncio.run(work())


def test_earlier_spending_counts() -> None:
    async def work() -> None:
        budget = Budget(1.0, spent=0.9)
        with pytest.raises(BudgetReached, match=r"\$0.9000 of \$1.0000") as caught:
            await budget.reserve(0.2)
        assert caught.value.exit_code == 4

    asyncio.run(work())
