"""Steps keep the loss of a mixture's routers."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_router_loss"
down_revision = "20261130_trackers"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("metrics", sa.Column("router_loss", sa.Double()))
