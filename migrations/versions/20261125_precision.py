"""What fp16 tells, the loss of each checkpoint, the command of a job, and the workers."""

import sqlalchemy as sa
from alembic import op

revision = "20261125_precision"
down_revision = "20261124_jobs"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("metrics", "grad_norm", nullable=True)
    op.add_column("metrics", sa.Column("loss_scale", sa.Double()))
    # The defaults are for the rows that are there. As constants they cost no time, whatever the size of the table.
    op.add_column("metrics", sa.Column("overflow", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("metrics", sa.Column("skipped_steps", sa.Integer(), server_default="0", nullable=False))
    op.alter_column("metrics", "overflow", server_default=None)
    op.alter_column("metrics", "skipped_steps", server_default=None)
    op.add_column("artifacts", sa.Column("eval_loss", sa.Double()))
    op.add_column("jobs", sa.Column("command", sa.Text()))
    op.create_table(
        "workers",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("machine", sa.JSON(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("workers")
    op.drop_column("jobs", "command")
    op.drop_column("artifacts", "eval_loss")
    for column in ("skipped_steps", "overflow", "loss_scale"):
        op.drop_column("metrics", column)
    op.execute("UPDATE metrics SET grad_norm = 'Infinity' WHERE grad_norm IS NULL")
    op.alter_column("metrics", "grad_norm", nullable=False)
