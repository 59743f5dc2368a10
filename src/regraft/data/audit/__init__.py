"""The audit: files before the split, features after extraction. Each kind of trouble is a small function, found by a list."""

from regraft.data.audit.files import Audited, Fact, Quarantined, audit_files
from regraft.data.audit.findings import LISTED, Finding, Kept, fatal
from regraft.data.audit.fixes import Fixes, read_fixes, write_fixes
from regraft.data.audit.looks import SIDE, Look
from regraft.data.audit.make import make_examples

__all__ = [
    "LISTED",
    "SIDE",
    "Audited",
    "Fact",
    "Finding",
    "Fixes",
    "Kept",
    "Look",
    "Quarantined",
    "audit_files",
    "fatal",
    "make_examples",
    "read_fixes",
    "write_fixes",
]
