"""What ``spot rectify`` prints at its end: what is there, where the file is, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from spotcli.console import counted, dollars, one_line, out
from spotcli.repair.cost_estimate import CostEstimate
from spotcli.repair.summary import RectifySummary
from spotcli.tables import new_table


def show(summary: RectifySummary) -> None:
    """Print the summary of a run, or the estimate of a dry run."""
    console = out()
    table = new_table("Pairs", "", "")
    for name, text in _rows(summary):
        table.add_row(name, one_line(text))
    console.print(table)
    if summary.estimate is not None:
        for sentence in estimate_sentences(summary.estimate, summary.max_cost):
            console.print(one_line(sentence))
        if summary.keep is not None:
            console.print(f"--keep {summary.keep} adds right answers of the policy, at no cost.")
        console.print("Nothing was sent.")
        return
    for sentence in summary.advice:
        console.print(one_line(sentence))
    if summary.pairs or summary.kept:
        path = one_line(shlex.quote(summary.path))
        rows = counted(summary.pairs, "pair")
        rows += f" and {counted(summary.kept, 'right answer')}" if summary.kept else ""
        console.print(f"{rows} in {path}; to look at them: spot inspect {path}", soft_wrap=True)


def _rows(summary: RectifySummary) -> Iterator[tuple[str, str]]:
    kinds = {"right": summary.right, "wrong": summary.wrong, "undecided": summary.undecided}
    yield "answers", f"{summary.samples:,}: {_counts(kinds)}"
    if summary.estimate is not None:
        if summary.cost:
            yield "spent so far", dollars(summary.cost)
        return
    if summary.pairs:
        yield "pairs", f"{summary.pairs:,}"
    if summary.reasons:
        yield "without a pair", f"{sum(summary.reasons.values()):,}: {_counts(summary.reasons)}"
    if summary.not_kept is not None:
        left_out = f"; left out: {_counts(summary.not_kept)}" if summary.not_kept else ""
        yield "right answers kept", f"{summary.kept:,} of {summary.right:,}, at no cost{left_out}"
    for name, row in summary.oracles.items():
        yield f"oracle {one_line(name)}", _replies(row)
    if summary.cost and len(summary.oracles) > 1:
        yield "cost", dollars(summary.cost)
    if summary.unsettled:
        yield "perhaps charged", f"{dollars(summary.unsettled)} for requests without a known end"
    if summary.unpriced:
        yield "price unknown", counted(summary.unpriced, "reply", "replies")
    if summary.ratio_unit and summary.pairs:
        yield "change ratio in", summary.ratio_unit
    yield "seconds", f"{summary.seconds:,.1f}"


def _replies(row: Mapping[str, float]) -> str:
    """Replies, pairs, tokens and cost of an oracle."""
    text = f"{counted(int(row['replies']), 'reply', 'replies')}, {counted(int(row['pairs']), 'pair')}"
    if row.get("tokens"):
        text += f", {int(row['tokens']):,} tokens"
    if row["cost"]:
        text += f", {dollars(row['cost'])}"
    if row.get("cost_per_pair"):
        text += f" ({dollars(row['cost_per_pair'])} per pair)"
    return text


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)


def estimate_sentences(estimate: CostEstimate, max_cost: float | None) -> list[str]:
    """Say what a job will cost, what that rests on, and what a limit would pay for."""
    batches = f"{counted(estimate.in_batches, 'wrong answer')} of an open batch: `--batch` collects the replies."
    if not estimate.requests:
        return [batches if estimate.in_batches else "All wrong answers have their replies: no request is needed."]
    answers = counted(estimate.requests, "wrong answer")
    own = f"The policy generates at most {estimate.policy_tokens:,} tokens, at no price."
    if estimate.policy_tokens and not estimate.prompt_tokens:
        return [f"{answers} to ask about. {own}"]
    if estimate.likely is None:
        return [
            f"{answers} to ask about, with {estimate.prompt_tokens:,} prompt and about {estimate.reply_tokens:,} reply "
            "tokens. Their price is unknown: set rectify.price_in and rectify.price_out, in dollars per million tokens."
        ]
    most = "without a known limit" if estimate.max is None else f"at most {dollars(estimate.max)}"
    sentences = [f"{answers} to ask about: about {dollars(estimate.likely)}, {most}."]
    if estimate.half_price:
        sentences.append("Requests in batches cost half.")
    if estimate.decided:
        ratio = f"{estimate.correction:.2g} times what their lengths let expect"
        sentences.append(f"This rests on {counted(estimate.decided, 'decided answer')}, which cost {ratio}.")
    elif estimate.reasoning_tokens:
        sentences.append(
            f"This includes {estimate.reasoning_tokens:,} reasoning tokens per reply, an assumption about this kind of "
            "model; after the first replies, another --dry-run uses theirs."
        )
    if estimate.policy_tokens:
        sentences.append(own)
    if estimate.in_batches:
        sentences.append(f"Not counted: {batches}")
    if max_cost is not None:
        sentences.append(_limit_sentence(estimate, max_cost))
    return sentences


def _limit_sentence(estimate: CostEstimate, max_cost: float) -> str:
    payable = estimate.affordable(max_cost)
    limit = f"--max-cost {max_cost:g}"
    if payable is None:
        return f"{limit} requires a known price."
    spent = f" ({dollars(estimate.spent)} of it are spent)" if estimate.spent else ""
    if payable == estimate.requests:
        return f"{limit}{spent} is likely to be enough."
    return f"{limit}{spent} would pay for {payable:,} of {estimate.requests:,}."
