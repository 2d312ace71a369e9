"""What of PaddleOCR's training a strategy meets, written anew: order of calls, names and files are PaddleOCR's.

PaddleOCR's training code is in no package. Read for this: ppocr/optimizer/__init__.py, ppocr/utils/save_load.py,
tools/program.py and tools/train.py of its repository.
"""
