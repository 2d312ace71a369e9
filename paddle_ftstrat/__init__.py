"""Fine-tuning strategies for PaddlePaddle: `import paddle_ftstrat as hub`."""

# Before Paddle: libpaddle of 2.6.2 breaks a zlib that is loaded after it, and with it every PNG file and gzip.
import zlib as _zlib  # noqa: F401

import lazy_loader as _lazy_loader

__version__ = "0.2.0"

# What a name needs is imported when it is first asked for, as __init__.pyi says: a strategy waits for no task, and a
# schedule for no Paddle.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
