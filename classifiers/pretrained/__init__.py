"""Pretrained models in numpy, without torch: sentence embeddings and a small language model's reading of a text.

This room may import only `classifiers.arrays` and `errors`, and the optional packages that hold the weights, when they are
used. It must not know what the features are used for.
"""
