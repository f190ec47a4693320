"""The command `mip`: thin verbs over the library.

A verb is a function in the file of its group (`start`, `train`, `use`, `look`, `keep`) and a name
in `VERBS` of `app`, which lists the groups as `mip --help` shows them. What others call it goes
into `synonyms`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
