"""Work shared out among workers of a Ray cluster: one on this machine alone, or one that runs already.

Nothing here is imported unless workers are asked for, and Ray is an extra: `pip install 'regraft[ray]'`.
"""

from regraft.scale.cluster import Cluster, crew_of

__all__ = ["Cluster", "crew_of"]
