"""Owners, priorities, retries and pauses of jobs; the devices of the workers, and who has them."""

import sqlalchemy as sa
from alembic import op

revision = "20261126_scheduler"
down_revision = "20261125_precision"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The defaults are for the rows that are there.
    for name, kind, default in (("owner", sa.Text(), "default"), ("priority", sa.Integer(), "0")):
        op.add_column("jobs", sa.Column(name, kind, server_default=default, nullable=False))
        op.alter_column("jobs", name, server_default=None)
    op.alter_column("jobs", "losses", new_column_name="retries")
    op.add_column("jobs", sa.Column("examples", sa.Integer()))
    op.add_column("jobs", sa.Column("expected_seconds", sa.Double()))
    op.add_column("jobs", sa.Column("failed_step", sa.Integer()))
    op.add_column("jobs", sa.Column("not_before", sa.DateTime(timezone=True)))
    op.add_column("jobs", sa.Column("batch", sa.JSON()))
    op.add_column("jobs", sa.Column("rendezvous", sa.Text()))
    op.add_column("jobs", sa.Column("receipt", sa.JSON()))
    op.drop_constraint(op.f("ck_jobs_wish"), "jobs")
    op.create_check_constraint(op.f("ck_jobs_wish"), "jobs", "wish IN ('cancel', 'kill', 'pause', 'step_aside')")
    op.drop_index("ix_jobs_queued", "jobs")
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["owner", sa.text("priority DESC"), "created_at"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    # JSONB has the operators for it. The order of the fields goes, in these rows alone.
    op.execute(
        """
        UPDATE jobs SET recipe = (
            recipe::jsonb #- '{parallel,processes}' #- '{parallel,nodes}' || jsonb_build_object('resources',
                jsonb_build_object('gpus', recipe->'parallel'->'processes', 'nodes', recipe->'parallel'->'nodes'))
        )::json
        WHERE recipe->'parallel'->'processes' IS NOT NULL
        """
    )
    # Each worker writes its row again within seconds.
    op.execute("DELETE FROM workers")
    op.add_column("workers", sa.Column("incarnation", sa.Text(), nullable=False))
    op.add_column("workers", sa.Column("address", sa.Text(), nullable=False))
    op.add_column("workers", sa.Column("draining", sa.Boolean(), nullable=False))
    op.create_table(
        "devices",
        sa.Column("worker", sa.Text(), sa.ForeignKey("workers.name", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("holders", sa.JSON()),
    )
    op.create_table(
        "leases",
        sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("worker", sa.Text(), primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True),
        sa.Column("attempt", sa.Integer(), primary_key=True),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("begun_at", sa.DateTime(timezone=True)),
        sa.Column("pid", sa.Integer()),
        sa.ForeignKeyConstraint(["worker", "number"], ["devices.worker", "devices.number"], ondelete="CASCADE"),
    )
    op.create_index(
        "uq_leases_device", "leases", ["worker", "number"], unique=True, postgresql_where=sa.text("NOT shared")
    )


def downgrade() -> None:
    op.drop_table("leases")
    op.drop_table("devices")
    op.execute(
        """
        UPDATE jobs SET recipe = (
            recipe::jsonb - 'resources' - 'scheduling' || jsonb_build_object('parallel',
                (recipe->'parallel')::jsonb || jsonb_build_object(
                    'processes', recipe->'resources'->'gpus', 'nodes', recipe->'resources'->'nodes'))
        )::json
        WHERE recipe->'resources' IS NOT NULL AND recipe->'parallel' IS NOT NULL
        """
    )
    for column in ("draining", "address", "incarnation"):
        op.drop_column("workers", column)
    op.drop_index("ix_jobs_queued", "jobs")
    op.create_index("ix_jobs_queued", "jobs", ["created_at"], postgresql_where=sa.text("status = 'queued'"))
    op.execute("UPDATE jobs SET wish = NULL WHERE wish IN ('pause', 'step_aside')")
    op.execute("UPDATE jobs SET wish = 'cancel' WHERE wish = 'kill'")
    op.drop_constraint(op.f("ck_jobs_wish"), "jobs")
    op.create_check_constraint(op.f("ck_jobs_wish"), "jobs", "wish IN ('cancel')")
    for column in ("receipt", "rendezvous", "batch", "not_before", "failed_step", "expected_seconds", "examples"):
        op.drop_column("jobs", column)
    op.alter_column("jobs", "retries", new_column_name="losses")
    op.drop_column("jobs", "priority")
    op.drop_column("jobs", "owner")
