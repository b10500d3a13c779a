"""The short way of a token: from an upstream's socket straight to the client's, for events that mean nothing but their text.

Per call there is one `Relay` (relay.py), which learns from the events that went the long way what the usual ones look like.
Whoever reads an upstream offers it each piece that comes in (`Relay.take`), but only while the call's reader waits for the next
piece and none is before it, so that the order stays: `Answer.sink` (http_answer.py) does so for remote tiers. It writes to the
client's `ClientSocket` (client_socket.py). What it does not take goes the long way: through the tier and the endpoint.
May import no other room of `deployments`. Must not know tiers or the endpoint.
"""
