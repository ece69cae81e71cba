"""Explaining transformers and Mamba so that every explanation can be checked.

Glossary of the axes, always named and ordered like this:

=========  =====================================================================================
layer      block of the model, first block first
batch      sample
head       attention head
query      position that reads (row of an attention map)
key        position that is read (column of an attention map)
input      position before the first block; ``rolled[layer, query, input]``
token      position in general; for pictures a patch, row by row
prefix     leading tokens that stand for no patch: [CLS], distillation, registers
=========  =====================================================================================

Where to look first: :mod:`models`, :mod:`samples` and :mod:`methods` each hold one table; the formulas are in
:mod:`maths`, which never meets a model.
"""

import gc

__version__ = "0.1.0"

gc.set_threshold(50_000)  # imports make a million objects that stay: looking through them again and again is slow
