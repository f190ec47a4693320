"""Images: cells in, decoded, cached and augmented pixels out.

To add a decoder, see `decoding.py`; to add a change of pixels in training, `augmentation.py`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
