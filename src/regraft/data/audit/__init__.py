"""The audit: files before the split, features after extraction. Each kind of trouble is a small function,
found by a list.
"""

from regraft.data.audit.duplicates import near_duplicates
from regraft.data.audit.features import ACROSS, FEATURE_KINDS, Near, Seen, audit_features, find_near
from regraft.data.audit.files import Audited, Fact, audit_files
from regraft.data.audit.findings import LISTED, Finding, Kept, fatal, several
from regraft.data.audit.fixes import Fixes, read_fixes, write_fixes
from regraft.data.audit.identical import IN_TEST, contradicting_test
from regraft.data.audit.make import make_examples
from regraft.data.rows import Quarantined

LATER = FEATURE_KINDS | {IN_TEST}  # what is found after the files were looked at: a resumed run finds it anew

__all__ = [
    "ACROSS",
    "IN_TEST",
    "LATER",
    "LISTED",
    "Audited",
    "Fact",
    "Finding",
    "Fixes",
    "Kept",
    "Near",
    "Quarantined",
    "Seen",
    "audit_features",
    "audit_files",
    "contradicting_test",
    "fatal",
    "find_near",
    "make_examples",
    "near_duplicates",
    "read_fixes",
    "several",
    "write_fixes",
]
