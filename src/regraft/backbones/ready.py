"""timm, imported once torchvision can be: it fails to import beside a torch that its wheel was not built
for.
"""

from regraft.runtime import quiet_libraries, ready_torchvision

quiet_libraries()
ready_torchvision()

import timm  # noqa: E402  (only after torchvision can be imported)

__all__ = ["timm"]
