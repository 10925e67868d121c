"""Keys may expire."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_key_expiry"
down_revision = "20261130_audit_filters"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("expires_at", sa.DateTime(timezone=True)))
