"""The audit log is searched by action and by object."""

from alembic import op

revision = "20261130_audit_filters"
down_revision = "20261130_memory_readings"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_action", "audit", ["action", "seq"])
    op.create_index("ix_audit_target", "audit", ["target", "seq"])
