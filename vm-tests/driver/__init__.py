"""Stories on whole machines: the driver that boots Debian, and the face that every story speaks to.

A story's body knows `face` and `client` only, so that a NixOS VM test can run it too; everything
else here is for our own machines. Not for what a story checks.
"""
