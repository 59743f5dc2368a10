"""Examples in: sources, audit, splits, the seal."""

from regraft.data.audit import (
    Audited,
    Finding,
    Fixes,
    Quarantined,
    audit_files,
    make_examples,
    read_fixes,
    several,
    write_fixes,
)
from regraft.data.examples import Examples, Named
from regraft.data.inputs import inputs
from regraft.data.known import KnownFile
from regraft.data.part import Part
from regraft.data.readings import Readings, count_readings, readings
from regraft.data.rows import Row
from regraft.data.sources import Source, read_source
from regraft.data.splits import assign_splits, fold_splits
from regraft.data.walker import Passed

__all__ = [
    "Audited",
    "Examples",
    "Finding",
    "Fixes",
    "KnownFile",
    "Named",
    "Part",
    "Passed",
    "Quarantined",
    "Readings",
    "Row",
    "Source",
    "assign_splits",
    "audit_files",
    "count_readings",
    "fold_splits",
    "inputs",
    "make_examples",
    "read_fixes",
    "read_source",
    "readings",
    "several",
    "write_fixes",
]
