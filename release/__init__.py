"""How a release is made: version, our own wheel, and one archive for each kind of machine.

``python -m release build`` and ``python -m release bump VERSION``; see docs/upgrade.md. Runs on the
maintainer's machine and in tests, never on a server: nothing of it is in the wheel.
"""
