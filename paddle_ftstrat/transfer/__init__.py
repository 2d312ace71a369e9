"""Weights in and out of models: partial loading from Paddle, torch and safetensors files, ways to tune, saving."""

import lazy_loader as _lazy_loader

# Readers of files wait until there is one.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
