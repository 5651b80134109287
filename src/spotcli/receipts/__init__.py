"""Receipts: the story of a row (``spot trace``), what is behind a model (``spot why``), two runs (``spot diff``)."""
