"""The audit cannot be emptied either: a trigger for each row is not asked then."""

from alembic import op

revision = "20261129_audit"
down_revision = "20261128_results"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()
        """
    )
