"""Workers say whether their inference servers leave memory to a job on the same device."""

import sqlalchemy as sa
from alembic import op

revision = "20261201_inference_shares"
down_revision = "20261130_cluster_wait"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("inference_shares", sa.Boolean(), server_default=sa.true(), nullable=False))
