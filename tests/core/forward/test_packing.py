"""The tensors of the shared and the plain layout."""

from __future__ import annotations

import pytest
import torch

from spotcli.core.forward.encoding import EncodedPair, row_tokens
from spotcli.core.forward.packing import pack


def test_the_layout_of_one_pair() -> None:
    # Prompt 1 2, common beginning 3, tails 4 5 and 6: one row, and the position of token 3 is scored for both tails.
    batch = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6))], share=True)
    assert batch.ids_RL.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch.spans == ((0, 3, 2, 1),)
    assert batch.rows_N.tolist() == [1, 2, 3, 2]
    assert batch.targets_N.tolist() == [3, 4, 5, 6]
    assert batch.chosen_N.tolist() == [True, True, True, False]
    assert batch.rejected_N.tolist() == [True, False, False, True]
    # logp(y+) = -1 -2 -4, logp(y-) = -1 -8
    chosen_B, rejected_B = batch.sequence_logps(torch.tensor([-1.0, -2.0, -4.0, -8.0]))
    assert (chosen_B.tolist(), rejected_B.tolist()) == ([-7.0], [-9.0])
    assert batch.chosen_token_logps(torch.tensor([-1.0, -2.0, -4.0, -8.0])).tolist() == [-1.0, -2.0, -4.0]


@pytest.mark.parametrize("share", [True, False])
def test_sums_over_kept_and_edited_tokens(share: bool) -> None:
    # y+ 3 4 5, y- 3 6 5: 3 and 5 are kept, 4 and 6 edited.
    batch = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6, 5))], share=share)
    values = {True: [1.0, 2.0, 4.0, 8.0, 16.0], False: [1.0, 2.0, 4.0, 1.0, 8.0, 16.0]}
    logps_N = torch.tensor(values[share])
    assert batch.span_sums(logps_N).tolist() == [5.0, 2.0, 8.0]
    assert [logps_B.tolist() for logps_B in batch.edited_logps(logps_N)] == [[2.0], [8.0]]


def test_a_pair_without_a_rejected_answer_is_one_answer_of_kept_tokens() -> None:
    rows = [EncodedPair((1, 2), (3, 4), (3, 5)), EncodedPair((6, 7), (8, 9), ())]
    shared, plain = pack(rows, share=True), pack(rows, share=False)
    assert shared.ids_RL.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8, 9]]
    assert shared.spans == ((0, 3, 1, 1), (5, 2, 2, 0))
    assert plain.ids_RL.tolist() == [[1, 2, 3, 4], [6, 7, 8, 9], [1, 2, 3, 5]]
    for batch, logps in ((shared, [-1.0, -2.0, -4.0, -8.0, -16.0]), (plain, [-1.0, -2.0, -8.0, -16.0, -1.0, -4.0])):
        chosen_B, rejected_B = batch.sequence_logps(torch.tensor(logps))
        assert (chosen_B.tolist(), rejected_B.tolist()) == ([-3.0, -24.0], [-5.0, 0.0])
        # 3, 8 and 9 are kept, 4 and 5 edited.
        assert batch.span_sums(torch.tensor(logps)).tolist() == [-25.0, -2.0, -4.0]
    assert row_tokens(rows) == 9
    assert [row.whole_tokens for row in rows] == [8, 4]
    assert [row.shared_tokens for row in rows] == [5, 4]


def test_a_row_contains_the_common_start_of_its_prompts_once() -> None:
    # Common start 1 2; the rest of the second prompt is only its last token, which always belongs to the pair.
    rows = [EncodedPair((1, 2, 3, 4), (5,), (6,)), EncodedPair((1, 2, 3), (7, 8), (7, 9))]
    batch = pack(rows, share=True)
    assert batch.ids_RL.tolist() == [[1, 2, 3, 4, 5, 6, 3, 7, 8, 9]]
    assert batch.positions_RL.tolist() == [[0, 1, 2, 3, 4, 4, 2, 3, 4, 4]]
    assert (batch.common, batch.spans) == (2, ((2, 2, 1, 1), (6, 2, 1, 1)))
    assert batch.rows_N.tolist() == [3, 3, 6, 7, 7]
    assert batch.targets_N.tolist() == [5, 6, 7, 8, 9]
    assert row_tokens(rows) == 10
    assert row_tokens(rows, rejected=False) == pack(rows, share=True, rejected=False).ids_RL.numel() == 8


def test_the_plain_layout_of_one_pair() -> None:
    batch = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6))], share=False)
    assert batch.ids_RL.tolist() == [[1, 2, 3, 4, 5], [1, 2, 3, 6, 0]]
    assert batch.attention_mask_RL is not None
    assert batch.attention_mask_RL.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.rows_N.tolist() == [1, 2, 3, 6, 7]
    assert batch.targets_N.tolist() == [3, 4, 5, 3, 6]
    alone = pack([EncodedPair((1, 2), (3, 4, 5), (3, 6))], share=False, rejected=False)
    assert alone.ids_RL.tolist() == [[1, 2, 3, 4, 5]]
