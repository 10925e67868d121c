"""The device on which an inference server could not start."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_failed_device"
down_revision = "20261130_inference"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("inference_servers", sa.Column("failed_worker", sa.Text()))
    op.add_column("inference_servers", sa.Column("failed_number", sa.Integer()))
