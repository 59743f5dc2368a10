"""Examples in: sources, audit, splits, the seal."""

from regraft.data.audit import Audited, Finding, Quarantined, audit_files, make_examples
from regraft.data.examples import Examples, Task
from regraft.data.readings import Readings, count_readings, readings
from regraft.data.sources import Row, Source, read_source
from regraft.data.splits import assign_splits, fold_splits, read_assignment

__all__ = [
    "Audited",
    "Examples",
    "Finding",
    "Quarantined",
    "Readings",
    "Row",
    "Source",
    "Task",
    "assign_splits",
    "audit_files",
    "count_readings",
    "fold_splits",
    "make_examples",
    "read_assignment",
    "read_source",
    "readings",
]
