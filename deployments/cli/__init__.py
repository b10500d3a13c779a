"""The command line: main.py lists every command, each other file holds one or a few of them, shared.py their common options.

`stepdown --help` imports all these files, so they load Ray, scikit-learn or vLLM only inside a command. May import every other
room. No other room may know this one.
"""
