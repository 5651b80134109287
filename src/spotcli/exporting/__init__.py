"""Hand-over to reinforcement learning: ``spot export`` writes what GRPO needs, for verl or TRL."""
