"""The command line: one file per noun, over the API on the local socket.

Not for rules (the verbs in ``tailnet`` have them). Imports nothing of the server but for ``serve``,
``dev`` and ``relay``, and those only when they run: ``headwater --help`` must be quick.
"""
