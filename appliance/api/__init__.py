"""The REST API, Headscale's version 1 shape: one file per noun, handlers thin.

A handler decodes, calls one verb inside ``live.edit()``, encodes. No rule lives here. For now it is
served on the local socket only, where the file system decides who may ask.
"""
