"""mip: mixed-input pipelines. Table columns and images in, one prediction out.

Names load what they need when they are first used, so that `import mip` costs nothing.
"""

from mip.lazy import attach_stub

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
