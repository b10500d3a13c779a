"""What was served and may be kept: consent, the worker that writes it, redaction, OpenAI's endpoints for it, feedback, exports.

May import the ledger and keys. Must never know how it is graded, filled in or learned from.
"""
