"""What a person sees on a terminal: a run while it goes on, and results as tables."""

from regraft.console.screen import Screen
from regraft.console.tables import (
    comparison_table,
    evaluation_table,
    export_table,
    findings_table,
    ranking_table,
    runs_table,
    strategies_table,
)

__all__ = [
    "Screen",
    "comparison_table",
    "evaluation_table",
    "export_table",
    "findings_table",
    "ranking_table",
    "runs_table",
    "strategies_table",
]
