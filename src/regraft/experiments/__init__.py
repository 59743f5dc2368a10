"""Runs of runs."""

from regraft.experiments.folds import cross_validated

__all__ = ["cross_validated"]
