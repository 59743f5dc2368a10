"""A model in other formats, each proven against it: graphs, and folders that other libraries load."""

from regraft.exporting.formats import FORMATS
from regraft.exporting.make import Exported, export
from regraft.exporting.proof import Difference, Proof, RefusedError

__all__ = ["FORMATS", "Difference", "Exported", "Proof", "RefusedError", "export"]
