"""What `stepdown fit` looks up on this machine: its cards and memory, and models' files, in a folder, the hub's cache or online.

May import router/fit and the errors. Must never know which models are chosen, nor how the ladder is written.
"""
