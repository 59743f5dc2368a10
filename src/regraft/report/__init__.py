"""What a run leaves for people to read: one self-contained page and a model card; and a page of runs
compared.
"""

from regraft.report.card import model_card
from regraft.report.comparison import write_comparison
from regraft.report.gallery import write_gallery
from regraft.report.html import write_report

__all__ = ["model_card", "write_comparison", "write_gallery", "write_report"]
