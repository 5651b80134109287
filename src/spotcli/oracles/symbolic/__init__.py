r"""The symbolic oracle repairs a worked calculation line by line, without a model. It declines if it is not certain.

    problem     12 + 30 - 7
    answer      12 + 30 = 43        repaired    12 + 30 = 42
                43 - 7 = 36                     42 - 7 = 35
                \boxed{36}                      \boxed{35}

The expression of the problem is the first *state*. Each equation of the answer is read as the computation of a part of
the state, in an order that precedence allows. Among all such interpretations, the one with the fewest slips is used. A
slip is a number or sign that is neither the true one nor the one that the answer's earlier lines imply. If two
different interpretations have equally few slips, the answer is ambiguous. The repair replaces what differs from the
truth in that interpretation and keeps the rest of the text.

Not supported: algebra, powers, roots, rounded results, and missing or additional steps.
"""

from spotcli.oracles.symbolic.declined import REASONS, Declined
from spotcli.oracles.symbolic.oracle import Repaired, SymbolicOracle, repair_calculation

__all__ = ["REASONS", "Declined", "Repaired", "SymbolicOracle", "repair_calculation"]
