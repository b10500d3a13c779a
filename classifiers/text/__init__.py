"""From a chat request to numbers: the text that stands for it, its tokens, n-grams and features, and how familiar it is.

This room may import `pretrained` and the files below it, but no classifier. It must not know tiers or scores. Training and
serving use the same functions, and artefacts depend on every column, so a change here needs a new artefact.
"""
