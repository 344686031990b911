"""Runs in a PostgreSQL database, for deployments of several machines.

`Database` is the one connection of this process, `Writer` the queue and the thread that write
through it, `PostgresRun` and `PostgresEngine` are what the port asks for.
"""
