"""A worker's incarnation becomes its instance_id."""

from alembic import op

revision = "20261130_instance_id"
down_revision = "20261130_plain_tar"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("workers", "incarnation", new_column_name="instance_id")
