"""The plan of an epoch: which pairs are in which micro-batch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spotcli.core.forward.batches import Layout, TokenLimit, fit, micro_batches, plan_epoch

SIZES_OF_PAIRS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


def layout_of(micro: int, accumulate: int, ranks: int) -> Layout:
    return Layout(micro * accumulate * ranks, accumulate, ranks)


@given(SIZES_OF_PAIRS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3))
def test_a_plan_contains_every_pair_once(sizes: list[int], micro: int, accumulate: int, ranks: int, epoch: int) -> None:
    layout = layout_of(micro, accumulate, ranks)
    assert layout.micro == micro
    plan = list(plan_epoch(sizes, layout=layout, seed=5, epoch=epoch))
    taken = [index for turn in plan for batch in turn if not batch.idle for index in batch.members]
    assert sorted(taken) == list(range(len(sizes)))
    assert len(plan) == layout.rounds_in_epoch(len(sizes))
    for turn in plan:
        assert len(turn) == ranks
        assert all(1 <= len(batch.members) <= micro for batch in turn)


@given(SIZES_OF_PAIRS, st.integers(1, 20), st.integers(1, 3), st.integers(50, 200), st.booleans(), st.integers(1, 3))
def test_no_micro_batch_exceeds_the_token_limit(
    sizes: list[int], step: int, ranks: int, tokens: int, padded: bool, epochs: int
) -> None:
    layout = fit(sizes, step=step, ranks=ranks, limit=TokenLimit(tokens, padded=padded), seed=5, epochs=epochs)
    for epoch in range(epochs):
        plan = list(plan_epoch(sizes, layout=layout, seed=5, epoch=epoch))
        assert len(plan) == layout.rounds_in_epoch(len(sizes))
        rows = [[sizes[index] for index in batch.members] for turn in plan for batch in turn if not batch.idle]
        assert max(len(row) * max(row) if padded else sum(row) for row in rows) <= tokens
        taken = [index for turn in plan for batch in turn if not batch.idle for index in batch.members]
        assert sorted(taken) == list(range(len(sizes)))
        assert steps(sizes, layout, epoch) == steps(sizes, Layout(step, step), epoch)


def test_a_token_limit_computed_by_hand() -> None:
    # One step of all pairs, the longest first, with 60 tokens: 50 | 30 20 | 20 10 10. Two micro-batches are not enough.
    # The largest of the three can be as small as 50.
    sizes = [10, 20, 30, 10, 50, 20]
    layout = fit(sizes, step=6, ranks=1, limit=TokenLimit(60, padded=False), seed=0, epochs=1)
    assert (layout.accumulate, layout.micro, layout.rounds_in_epoch(6)) == (3, 2, 3)
    plan = [batch.members for (batch,) in plan_epoch(sizes, layout=layout, seed=0, epoch=0)]
    assert plan == [(4,), (2, 1), (5, 0, 3)]
    # With padding to the longest pair, 30 20 has 60 tokens and 20 10 10 has 60.
    assert fit(sizes, step=6, ranks=1, limit=TokenLimit(60, padded=True), seed=0, epochs=1).accumulate == 3
    assert fit(sizes, step=6, ranks=1, limit=TokenLimit(59, padded=True), seed=0, epochs=1).accumulate == 4
    # Four ranks run one round. The heaviest micro-batch of several pairs is divided for it: 30 and 20.
    four = fit(sizes, step=6, ranks=4, limit=TokenLimit(60, padded=False), seed=0, epochs=1)
    (turn,) = plan_epoch(sizes, layout=four, seed=0, epoch=0)
    assert [batch.members for batch in turn] == [(4,), (2,), (1,), (5, 0, 3)]
    # Without a fixed number of micro-batches, as for the reference.
    assert micro_batches([4, 2, 1, 5, 0, 3], sizes, layout) == [[4], [2, 1], [5, 0, 3]]
    assert micro_batches([4, 2, 1], sizes, Layout(4, 2)) == [[4, 2], [1]]


def steps(sizes: list[int], layout: Layout, epoch: int = 1) -> list[set[int]]:
    plan = list(plan_epoch(sizes, layout=layout, seed=5, epoch=epoch))
    return [
        {index for turn in plan[start : start + layout.accumulate] for batch in turn if not batch.idle
         for index in batch.members}
        for start in range(0, len(plan), layout.accumulate)
    ]  # fmt: skip


@given(SIZES_OF_PAIRS)
def test_a_step_has_the_same_pairs_in_every_layout(sizes: list[int]) -> None:
    whole = steps(sizes, layout_of(12, 1, 1))
    assert steps(sizes, layout_of(3, 4, 1)) == whole
    assert steps(sizes, layout_of(3, 2, 2)) == steps(sizes, layout_of(1, 4, 3)) == whole


def test_ranks_take_turns_with_the_longest_pairs() -> None:
    """Processes that wait for each other once per step should have about the same tokens in it."""
    sizes = [80, 70, 60, 50, 40, 30, 20, 10]
    plan = list(plan_epoch(sizes, layout=layout_of(1, 4, 2), seed=0, epoch=0))
    assert [[sizes[batch.members[0]] for batch in turn] for turn in plan] == [[80, 70], [50, 60], [40, 30], [10, 20]]
    # 180 each. If the first rank had the longest pair of every turn, it would have 200 of 360.
    assert [sum(sizes[turn[rank].members[0]] for turn in plan) for rank in range(2)] == [180, 180]


def test_epochs_and_seeds_have_different_orders() -> None:
    def order(seed: int, epoch: int) -> list[tuple[int, ...]]:
        plan = plan_epoch([1] * 40, layout=Layout(1, 1), seed=seed, epoch=epoch)
        return [turn[0].members for turn in plan]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(0, 0)), tuple(order(0, 1)), tuple(order(1, 0))}) == 3
