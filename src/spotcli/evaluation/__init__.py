"""The evaluation wing: benchmarks, their answers and scores, drift, and held-out problems."""
