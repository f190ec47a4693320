"""Branches: what a model reads, one kind per file.

To add a kind of column:

1. Write its class, with the verbs of `Branch`, in a file of this folder, and show it in
   `__init__.pyi`. The optional verbs are in `protocol.py`.
2. List it in `mip/spec/kinds.py`, and what others call it in `mip/spec/synonyms.py`. For `mip new`
   to propose it, give it a role in `mip/spec/inference.py` and `mip/spec/drafts.py`.
3. Give it a line in `tests/branches/test_kinds.py` and a section in `docs/models.md`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
