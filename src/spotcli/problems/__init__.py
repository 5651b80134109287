"""Problem sets by name: ``sources.iter_problems``."""
