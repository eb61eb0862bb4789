"""The migrations, one a file, named by number and date; the revision id is the schema version.

Each says in ``OLDEST_READER`` which schema version's programs can still work with the database
afterwards, and in ``OLDEST_PROGRAM`` the first release that has that version.
"""
