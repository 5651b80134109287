"""Comparing a reference with an answer; ``equality.equal`` is the entry point."""


class Undecidable(Exception):
    """Neither equality nor difference can be proved; the message is the reason."""
