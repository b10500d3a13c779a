"""What several ingresses of one server must agree on, so that a client need not know which of them answers.

They meet in one small Serve deployment, `exchange.py`; while that is away, each goes on with what it has found out itself. May
import the rooms below `endpoint`, and `spoken`. Must not know how an answer comes about, hold a request up for longer than a
moment, or fail one.
"""
