"""Which ladder fits a machine: the memory of a model on vLLM as plain arithmetic, the choice of models, and the file it makes.

It imports errors only, reads no file but its own families.yaml, and must not know how a machine or a model's files are found,
nor a ladder's settings as types: the file that it writes is checked by those who know them.
"""
