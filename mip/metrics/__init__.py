"""Metrics: numbers that say how good predictions are, and what they mean.

To add one, write the function of (predictions, targets) in the file of its topic, give it a line in
`named.py`, with the fold that computes it over batches, and show it in `__init__.pyi`; the test
`tests/capabilities/test_metrics_by_name.py` then wants another library to compare it with.

They are not torchmetrics', which takes longer to import than torch and sums in float32.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
