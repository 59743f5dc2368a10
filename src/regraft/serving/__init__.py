"""Finished models behind HTTP, and a page to try them in: `regraft serve`."""

from regraft.serving.limits import Limits, checked_access
from regraft.serving.server import serve
from regraft.serving.shelf import places_of

__all__ = ["Limits", "checked_access", "places_of", "serve"]
