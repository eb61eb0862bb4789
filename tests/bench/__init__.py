"""What the server costs, measured: ``python -m tests.bench [NAME …]``.

Every figure is CPU time of the server process, all threads, unless its name says otherwise; the
simulated clients run in processes of their own and share the machine, so wall-clock rates are
floors. Not run by ``make test``.
"""
