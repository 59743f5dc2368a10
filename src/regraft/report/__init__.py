"""What a run leaves for people to read: one self-contained page and a model card."""

from regraft.report.card import model_card
from regraft.report.html import write_report

__all__ = ["model_card", "write_report"]
