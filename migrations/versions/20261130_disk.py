"""Workers report the free space of their disks."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_disk"
down_revision = "20261130_retention"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("disk", sa.JSON()))
    op.add_column("workers", sa.Column("low_disk", sa.Boolean(), server_default=sa.false(), nullable=False))
