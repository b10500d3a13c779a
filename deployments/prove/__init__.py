"""`stepdown prove`: evidence on an operator's own models and machines, from prompts to one page.

May import every room below the command line. Must never know a command's options; `deployments/cli/prove.py` reads them.
"""
