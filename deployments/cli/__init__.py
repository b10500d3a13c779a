"""The command line: main.py lists every command, each other file holds one or a few of them, shared.py what they share.
May import every other room, but Ray, scikit-learn and vLLM only inside a command: `stepdown --help` imports all these files.
No other room may know this one.
"""
