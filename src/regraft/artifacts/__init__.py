"""What a run leaves behind and how it is written: whole files, the event log, the run's folder and its
lock, fingerprints. Knows no other type of the project.
"""

from regraft.artifacts.events import Events, Listener, read_events
from regraft.artifacts.files import (
    atomic,
    openable,
    order_metadata,
    read_json,
    read_parquet,
    to_json,
    utf8,
    write_bytes,
    write_json,
    write_parquet,
    write_text,
)
from regraft.artifacts.fingerprints import file_sha256, fingerprint
from regraft.artifacts.folder import RunFolder, claim_free, next_free

__all__ = [
    "Events",
    "Listener",
    "RunFolder",
    "atomic",
    "claim_free",
    "file_sha256",
    "fingerprint",
    "next_free",
    "openable",
    "order_metadata",
    "read_events",
    "read_json",
    "read_parquet",
    "to_json",
    "utf8",
    "write_bytes",
    "write_json",
    "write_parquet",
    "write_text",
]
