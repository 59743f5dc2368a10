"""Runs of runs, and finished ones side by side.

`folds` cross-validates the whole walk; `compare` pairs runs on one test set; `again` evaluates a finished
run once more.
"""
