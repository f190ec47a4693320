"""The pipe: from rows to batches; samplers, stages, and the nodes that run them.

To add a stage: write its class, with the method `node`, and the function that adds it in
`stages.py`; show the function in `__init__.pyi`; test it in `tests/pipe/test_pipe.py`; describe it
in `docs/data.md`. To add a sampler: write its class in `samplers.py` and an option of `sample` in
`stages.py`; list it in `tests/pipe/test_samplers.py`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
