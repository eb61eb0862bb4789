"""Runs that are too long for the suite, each with a short form in it."""
