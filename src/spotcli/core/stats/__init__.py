"""Confidence intervals of scores, paired tests between two models, and proof that nothing was lost.

    k trials per problem -> the mean of the problem -> mean over problems, interval, paired test -> mean over tasks

The unit is the problem. Outcomes are numbers in [0, 1], usually 1 for a right answer and 0 for any other; all results
are shares in the same unit.
"""

from spotcli.core.stats.averages import Average, average_change, average_score
from spotcli.core.stats.estimates import Estimate, Outcomes, avg_at_k, exact_interval
from spotcli.core.stats.paired import Comparison, compare, holm, mcnemar, sign_flip
from spotcli.core.stats.repeated import attainable, maj_at_k, pass_at_k
from spotcli.core.stats.retention import Retention, excludable_loss, least_loss, problems_needed, retained

__all__ = [
    "Average",
    "Comparison",
    "Estimate",
    "Outcomes",
    "Retention",
    "attainable",
    "average_change",
    "average_score",
    "avg_at_k",
    "compare",
    "exact_interval",
    "excludable_loss",
    "holm",
    "least_loss",
    "maj_at_k",
    "mcnemar",
    "pass_at_k",
    "problems_needed",
    "retained",
    "sign_flip",
]
