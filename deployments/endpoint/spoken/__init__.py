"""How an answer is written for a client: in the protocol of its path, and kept so that a later request can continue it."""
