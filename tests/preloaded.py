"""What commands need sooner or later, imported by the process that `commands.py` forks them from. Nothing
is computed.
"""

from __future__ import annotations

from regraft.runtime import quiet_libraries

quiet_libraries()  # before the libraries are imported, as a command does

import matplotlib.backends.backend_svg  # noqa: E402
import matplotlib.figure  # noqa: E402
import matplotlib.font_manager  # noqa: E402
import sklearn.neighbors  # noqa: E402

import regraft.api  # noqa: E402
import regraft.cli  # noqa: E402
import regraft.console  # noqa: E402
import regraft.run.walk  # noqa: E402
from regraft.inference import engines  # noqa: E402

__all__ = ["engines", "matplotlib", "regraft", "sklearn"]
