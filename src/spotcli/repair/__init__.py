"""Repairing wrong answers: what an oracle is asked next, how its replies are kept and judged, and what they cost."""
