"""The command `mip`: thin verbs over the library.

To add a verb:

1. Write it as a function in the file of its group: `start` (tables and specs), `train`, `use` (a
   trained model), `look` (at models and runs), `keep` (what is cached on disk).
2. List it in `VERBS` of `app`, and other tools' names for it in `synonyms`.
3. Describe it in the table of `README.md` and test it in `tests/cli`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
