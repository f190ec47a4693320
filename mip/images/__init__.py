"""Images: cells in, decoded, cached and augmented pixels out.

To add a decoder, see `decoding.py`; to add a change of pixels in training, `augmentation.py`.
"""

from mip.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
