"""Policy texts, read strictly: the document and its sections, mistakes with their place, layout.

Not for who may reach whom (``policy.engine``).
"""
