"""The classifiers: how a text's features become each tier's chance of a good answer. `registry` lists them by name.

This room may import `text`, `pretrained` and the files below them. It must not know calibrated artefacts, costs, answers or
how a tier is chosen. A new classifier is a file here and a line in the registry.
"""
