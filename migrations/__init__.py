"""The database's history: one file for each step, run in order by Alembic."""
