"""The one error of the codecs.

Raised by everything in ``wire`` for bytes that break a rule; caught by the loop of the link that
read them, which counts it and closes. Never raised for a mistake of ours.
"""


class ProtocolError(Exception):
    """The peer broke a rule of the protocol; the link cannot go on."""
