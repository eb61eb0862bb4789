"""What people are told about a policy: tests, explanations, comparison, dump.

The same with a server and offline. Not for deciding anything (``policy.engine`` does).
"""
