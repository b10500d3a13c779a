"""Training a model on a data folder: encoding, losses, optimisers, exact resume, adapters; and answers of a model without a
server.

Works on folders of files. May import router/distil; torch, transformers, peft and vLLM only inside functions or in files that
only a training or an answering process imports. Must never know the ledger, tiers, HTTP or the flywheel.
"""
