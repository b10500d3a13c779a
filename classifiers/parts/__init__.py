"""How a text falls into parts, and whether the parts can be answered independently; for delegation.

This room may import nothing of `classifiers`, and no scikit-learn: it runs regular expressions and one small linear model.
It must not know tiers, chances or artefacts.
"""
