"""The steps of the database schema, one file each, which Alembic runs in order."""
