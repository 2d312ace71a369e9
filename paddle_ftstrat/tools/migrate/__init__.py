"""`ftstrat migrate`: PaddleHub 1.x fine-tuning scripts and notebooks to this library, on the syntax tree.

`command` is the command line, `rewriter` the way of one file: `facts` finds out what names mean, the walk asks the
rules (`strategies`, `tasks`, `advice`), `imports` puts the import statements right, `ipython` knows notebooks.
"""
