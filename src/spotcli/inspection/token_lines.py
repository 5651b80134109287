"""The tokens of a pair as lines of text: boundaries, visible white space, what was edited, and the surprise.

    │The│·answer│·is│·[-│4│2-]│.│<|im_end|>│

With surprise, a token of at least one nat has its nats as a raised number where there is no colour, else a background.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from spotcli.console import one_line, safe
from spotcli.inspection.surprise import PairSurprise
from spotcli.inspection.trained_tokens import SPANS, PairTokens, Token

if TYPE_CHECKING:
    from rich.text import Text

BOUNDARY = "│"
"""Between two tokens."""

PARTIAL = "…"
"""A token that ends inside a character; the next one shows the character."""

FOLDED = 4
"""Lines of the prompt and of the shared prefix that are shown when they are folded."""

LISTED = 5
"""Most surprising tokens of an edit that are listed."""

_BLANKS = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥"})
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_INTENSITY = ((8, 202), (4, 209), (2, 216), (1, 223), (0.5, 230))
"""Nats from which a token has a background, and its colour: pale to orange."""

_MARKS = {"y-": ("[-", "-]"), "y+": ("{+", "+}")}
_EDITED = {"y-": "black on red", "y+": "black on green"}

Nats = Sequence[float] | None


def visible(text: str) -> str:
    """The text of a token, harmless and with visible white space."""
    return safe(text).translate(_BLANKS) or PARTIAL


def token_parts(
    tokens: PairTokens | str, surprise: PairSurprise | None, *, marked: bool, width: int | None, folded: bool
) -> list[Text]:
    """Lines with the counts and the tokens of a pair.

    Args:
        tokens: those of the pair, or why it cannot be trained on.
        surprise: of its tokens, if it is known.
        marked: write marks and numbers, because there is no colour.
        width: columns of a line; None for lines of any length.
        folded: show only the end of the prompt and of the shared prefix.
    """
    from rich.text import Text

    if isinstance(tokens, str):
        return [Text(f"training leaves this pair out: {tokens}", style="yellow")]
    notes = [Text(one_line(note), style="yellow") for note in tokens.notes]
    nats = {} if surprise is None else _nats(tokens, surprise)
    if surprise is not None and not nats:
        note = "the surprise in the file is that of other tokens, such as those of another chat template"
        notes.append(Text(note, style="yellow"))
    answers = {"y-": tokens.rejected, "y+": tokens.chosen}
    lines = [_counted(name, tokens, answer) for name, answer in answers.items() if answer]
    lines += [_surprising(name, answer, nats[name]) for name, answer in answers.items() if answer and nats]
    layout = _Layout(marked, width)
    shown = {"prompt": layout.lines(tokens.prompt, None, "")}
    titles = {"prompt": _title("prompt", tokens.prompt)}
    if tokens.shared:
        common = {name: answer[: tokens.shared] for name, answer in answers.items()}
        titles["shared"] = f"shared prefix, {_number(common['y+'])}, {_shared_loss(common['y+'], common['y-'])}"
        shown["shared"] = layout.lines(common["y+"], nats.get("y+"), "y+")
    for name, answer in answers.items():
        if rest := answer[tokens.shared :]:
            known = nats.get(name)
            titles[name] = _title(f"{name} after the shared prefix" if tokens.shared else name, rest)
            shown[name] = layout.lines(rest, None if known is None else known[tokens.shared :], name)
    for name, title in titles.items():
        hidden = len(shown[name]) - FOLDED if folded and name in ("prompt", "shared") else 0
        lines += [Text(), Text(title, style="bold underline")]
        if hidden > 1:
            lines += [Text(f"⋯ {hidden} more lines (z)", style="dim"), *shown[name][hidden:]]
        else:
            lines += shown[name]
    return [*notes, *lines]


def _nats(tokens: PairTokens, surprise: PairSurprise) -> dict[str, list[float]]:
    """The surprise of each token of both answers; empty if it is that of other tokens."""
    nats = {"y+": [*surprise.shared, *surprise.chosen], "y-": [*surprise.shared, *surprise.rejected]}
    if not tokens.rejected:
        nats["y-"] = []
    sizes = (len(tokens.chosen), len(tokens.rejected))
    return nats if surprise.ids == tokens.digest and (len(nats["y+"]), len(nats["y-"])) == sizes else {}


def _number(tokens: Sequence[Token]) -> str:
    return f"{len(tokens):,} token" + ("" if len(tokens) == 1 else "s")


def _title(name: str, tokens: Sequence[Token]) -> str:
    trained = sum(token.trained for token in tokens)
    loss = "no loss" if not trained else "with loss" if trained == len(tokens) else f"{trained:,} with loss"
    return f"{name}, {_number(tokens)}, {loss}"


def _shared_loss(chosen: Sequence[Token], rejected: Sequence[Token]) -> str:
    names = [name for name, side in (("y+", chosen), ("y-", rejected)) if any(token.trained for token in side)]
    return f"with loss for {' and '.join(names)}" if names else "no loss"


def _counted(name: str, tokens: PairTokens, answer: Sequence[Token]) -> Text:
    """How many tokens each part of prompt and answer has, and how many carry loss."""
    from rich.text import Text

    counts = tokens.counts(answer)
    parts = ", ".join(f"{SPANS[span]} {counts[span]:,}" for span in SPANS if counts[span])
    trained = sum(token.trained for token in answer)
    return Text.assemble((name, "bold"), f" {counts.total():,} tokens: {parts}; {trained:,} with loss")


def _surprising(name: str, answer: Sequence[Token], nats: Sequence[float]) -> Text:
    """The mean surprise of an answer and of its edit, and the most surprising tokens of the edit."""
    from rich.text import Text

    values = list(zip(answer, nats, strict=True))
    edit = [(token, value) for token, value in values if token.span == "edited"]
    text = f" surprise {_mean(value for _, value in values):.2f} nats/token"
    if edit:
        text += f", of its edited tokens {_mean(value for _, value in edit):.2f}; most surprising: "
        most = sorted(edit, key=lambda item: -item[1])[:LISTED]
        text += ", ".join(f"{visible(token.text)} {value:.2f}" for token, value in most)
    return Text.assemble((name, "bold"), text)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


class _Layout:
    """Lines of tokens, of at most ``width`` columns; a token longer than that has a line of its own."""

    def __init__(self, marked: bool, width: int | None) -> None:
        self.marked, self.width = marked, width

    def lines(self, tokens: Sequence[Token], nats: Nats, name: str) -> list[Text]:
        """The lines of some tokens, each line with the boundaries of its tokens."""
        result: list[Text] = []
        line = _start()
        cells = empty = line.cell_len
        for token, unit in zip(tokens, self._units(tokens, nats, name), strict=True):
            size = unit.cell_len + 1
            if self.width is not None and cells > empty and cells + size > self.width:
                result.append(line)
                line, cells = _start(), empty
            line.append_text(unit).append(BOUNDARY, style="dim")
            cells += size
            if token.text.endswith("\n"):
                result.append(line)
                line, cells = _start(), empty
        return [*result, line] if cells > empty else result

    def _units(self, tokens: Sequence[Token], nats: Nats, name: str) -> Iterator[Text]:
        """Each token with its marks."""
        from rich.text import Text

        before, after = _MARKS.get(name, ("", ""))
        marked = self.marked or nats is not None  # a background cannot show both the edit and the surprise
        for place, token in enumerate(tokens):
            text, style = visible(token.text), _style(token, name)
            value = 0.0 if nats is None else nats[place]
            if token.span == "edited" and marked:
                style = "bold"
                if place == 0 or tokens[place - 1].span != "edited":
                    text = before + text
            if nats is not None and self.marked and value >= 1:
                text += f"{value:.0f}".translate(_RAISED)
            if token.span == "edited" and marked and (place + 1 == len(tokens) or tokens[place + 1].span != "edited"):
                text += after
            shade = next((colour for least, colour in _INTENSITY if value >= least), None)
            if shade is not None and not self.marked:
                style = f"black on color({shade})"
            yield Text(text, style=style)


def _start() -> Text:
    """An empty line."""
    from rich.text import Text

    return Text().append(BOUNDARY, style="dim")


def _style(token: Token, name: str) -> str:
    if token.special:
        return "bold magenta"
    if token.span == "edited":
        return _EDITED[name]
    return "dim" if token.span == "prompt" else ""
