"""Keys, quotas, an audit and repeated requests; datasets; exports; webhooks; files and digests of artifacts."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "20261127_api"
down_revision = "20261126_scheduler"
branch_labels = None
depends_on = None


def _now(name: str = "created_at") -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False)


def _time(name: str, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, nullable: bool = True) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def upgrade() -> None:
    _owners()
    _datasets()
    _jobs()
    _exports()
    _webhooks()


def _owners() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.Text(), primary_key=True),
        _text("owner", nullable=False),
        _text("name"),
        sa.Column("admin", sa.Boolean(), nullable=False),
        _text("digest", nullable=False),
        _text("hint", nullable=False),
        _now(),
        _time("revoked_at"),
    )
    op.create_index("uq_keys_digest", "keys", ["digest"], unique=True)
    op.create_index("ix_keys_owner", "keys", ["owner"])
    op.create_table(
        "quotas",
        sa.Column("owner", sa.Text(), primary_key=True),
        sa.Column("running_jobs", sa.Integer()),
        sa.Column("queued_jobs", sa.Integer()),
        sa.Column("bytes", sa.BigInteger()),
    )
    op.create_table(
        "audit",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), primary_key=True),
        _now("at"),
        _text("owner", nullable=False),
        _text("key_id"),
        _text("action", nullable=False),
        _text("target"),
        _text("request_id", nullable=False),
        sa.Column("data", sa.JSON()),
    )
    op.create_index("ix_audit_owner", "audit", ["owner", "seq"])
    op.execute(
        """
        CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
        FOR EACH ROW EXECUTE FUNCTION audit_is_append_only()
        """
    )
    op.create_table(
        "requests",
        sa.Column("id", sa.Text(), primary_key=True),
        _text("owner", nullable=False),
        _text("route", nullable=False),
        _text("key"),
        _text("body_sha256", nullable=False),
        _text("resource"),
        _now(),
    )
    where = sa.text("key IS NOT NULL")
    op.create_index("uq_requests_key", "requests", ["owner", "route", "key"], unique=True, postgresql_where=where)
    op.create_index("ix_requests_body", "requests", ["owner", "route", "body_sha256", "created_at"])
    op.create_index("ix_requests_created", "requests", ["created_at"])


def _datasets() -> None:
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), primary_key=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        _now(),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), primary_key=True),
        _text("owner", nullable=False),
        _text("filename", nullable=False),
        _text("purpose", nullable=False),
        sa.Column("sha256", sa.Text(), sa.ForeignKey("blobs.sha256")),
        _text("path"),
        _text("source"),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        _text("status", nullable=False),
        _text("status_details"),
        _text("format"),
        sa.Column("columns", sa.JSON()),
        sa.Column("rows", sa.Integer()),
        sa.Column("report", sa.JSON()),
        _now(),
        _time("expires_at"),
        sa.CheckConstraint("status IN ('uploaded', 'processed', 'error')", name=op.f("ck_datasets_status")),
        sa.CheckConstraint("(sha256 IS NULL) <> (path IS NULL)", name=op.f("ck_datasets_source")),
    )
    op.create_index("ix_datasets_newest", "datasets", ["owner", sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_datasets_sha256", "datasets", ["sha256"])


def _jobs() -> None:
    for name in ("training_file", "validation_file"):
        op.add_column("jobs", sa.Column(name, sa.Text(), sa.ForeignKey("datasets.id", ondelete="SET NULL")))
    op.add_column("jobs", sa.Column("asked", sa.JSON()))
    op.add_column("jobs", sa.Column("tags", postgresql.JSONB()))
    op.add_column("jobs", _time("model_deleted_at"))
    op.create_index("ix_jobs_owner_newest", "jobs", ["owner", sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("ix_jobs_tags", "jobs", ["tags"], postgresql_using="gin")
    read = ("resources", "precision", "parallel,engine")
    shape = " || ' ' || ".join(f"coalesce(recipe #>> '{{{field}}}', '')" for field in read)
    op.add_column("jobs", sa.Column("shape", sa.Text(), sa.Computed(shape, persisted=True), nullable=False))
    op.drop_index("ix_jobs_queued", "jobs")
    op.create_index(
        "ix_jobs_queued",
        "jobs",
        ["owner", "shape", sa.text("priority DESC"), "created_at"],
        postgresql_where=sa.text("status = 'queued'"),
    )
    op.add_column("artifacts", sa.Column("files", sa.JSON()))
    op.add_column("artifacts", _text("sha256"))
    op.add_column("artifacts", sa.Column("crc32", sa.BigInteger()))
    op.add_column("artifacts", _time("published_at"))
    where = sa.text("published_at IS NULL")
    op.create_index("ix_artifacts_unpublished", "artifacts", ["job_id"], postgresql_where=where)


def _exports() -> None:
    op.create_table(
        "exports",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("job_id", sa.Text(), sa.ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
        _text("format", nullable=False),
        _text("source", nullable=False),
        _text("status", nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        _text("worker"),
        _time("lease_expires_at"),
        sa.Column("failure", sa.JSON()),
        _text("artifact"),
        _now(),
        _time("finished_at"),
        sa.CheckConstraint("status IN ('queued', 'running', 'succeeded', 'failed')", name=op.f("ck_exports_status")),
        sa.CheckConstraint("(status = 'running') = (lease_expires_at IS NOT NULL)", name=op.f("ck_exports_lease")),
        sa.CheckConstraint("(status = 'failed') = (failure IS NOT NULL)", name=op.f("ck_exports_failure")),
    )
    op.create_index("ix_exports_job", "exports", ["job_id"])
    where = sa.text("status IN ('queued', 'running')")
    op.create_index("ix_exports_open", "exports", ["created_at"], postgresql_where=where)


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Text(), primary_key=True),
        _text("owner", nullable=False),
        _text("url", nullable=False),
        _text("secret", nullable=False),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        _now(),
    )
    op.create_index("ix_webhooks_owner", "webhooks", ["owner"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("webhook_id", sa.Text(), sa.ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
        _text("type", nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        _text("status", nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        _time("due_at", nullable=False),
        sa.Column("answer_status", sa.Integer()),
        _text("error"),
        _now(),
        _time("delivered_at"),
        sa.CheckConstraint("status IN ('pending', 'delivered', 'failed')", name=op.f("ck_deliveries_status")),
    )
    op.create_index("ix_deliveries_due", "deliveries", ["due_at"], postgresql_where=sa.text("status = 'pending'"))
    op.create_index(
        "ix_deliveries_newest", "deliveries", ["webhook_id", sa.text("created_at DESC"), sa.text("id DESC")]
    )
