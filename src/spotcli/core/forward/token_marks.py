"""Which tokens of a pair spot-focal lowers, and how much each token counts in sft and dft.

Both follow the alignment of ``EncodedPair.edited``. An answer without an edited token has none of the other answer's
tokens in their place: y- where y+ only inserts, y+ where it only deletes. Then the token after the common beginning
counts as edited, because there the two answers go on differently.
"""

from __future__ import annotations

from spotcli.core.forward.encoding import EncodedPair


def errors(pair: EncodedPair, *, first: bool) -> list[bool]:
    """Return for each token of y- whether it is an error: the tokens E of spot-focal.

    If y+ only inserts, the one error is the token of y- after the first insertion: there the policy went on instead. If
    y- ends there, it has no error.

    Args:
        pair: the pair; without y- there are no tokens.
        first: only the first contiguous run of edited tokens of y-, else all of them.
    """
    marks = _marked(pair, pair.edited()[1])
    if first and True in marks:
        start = marks.index(True)
        end = next((index for index in range(start, len(marks)) if not marks[index]), len(marks))
        marks[end:] = [False] * (len(marks) - end)
    return marks


def weights(pair: EncodedPair, *, kept: float, suffix: float) -> list[float]:
    """Return the weight of each token of y+ in sft and dft: 1 for edited tokens, and for all tokens without y-.

    Args:
        pair: the pair.
        kept: weight of the kept tokens before the first edit.
        suffix: weight of the kept tokens after it.
    """
    if not pair.rejected_ids:
        return [1.0] * len(pair.chosen_ids)
    marks, head = _marked(pair, pair.edited()[0]), pair.shared
    return [1.0 if mark else kept if index < head else suffix for index, mark in enumerate(marks)]


def _marked(pair: EncodedPair, edited: list[bool]) -> list[bool]:
    """Mark the token after the common beginning if no token of the answer is edited."""
    head = pair.shared
    return edited if True in edited else [index == head for index in range(len(edited))]
