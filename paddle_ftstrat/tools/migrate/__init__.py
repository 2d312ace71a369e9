"""`ftstrat migrate`: PaddleHub 1.x and paddle.fluid fine-tuning scripts to this library, on the syntax tree.

`command` is the command line, `source` the way of one file: `facts` finds out what names mean, `rewriter` walks the
tree and asks the rules (`strategies`, `config`, `tasks`, `hub_advice`, `fluid`, `fluid_decays`, `fluid_advice`),
`imports` puts the import statements right. `arguments` and `todo` are the tools of the rules.
"""
