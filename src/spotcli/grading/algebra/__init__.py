"""Comparing formulas with sympy, in worker processes that can be killed."""
