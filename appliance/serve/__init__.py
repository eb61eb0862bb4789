"""Where parts are made and joined: start, reload and stop of the server, and of a relay alone.

Not for what any part does.
"""
