"""The results of a job become an artifact, which the publishing process also makes for jobs that succeeded before."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_results_artifact"
down_revision = "20261129_vocabulary"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        sa.text(
            """
            INSERT INTO artifacts (job_id, name, kind, path, bytes)
            SELECT id, 'results.csv', 'results', id || '/attempt-' || attempt || '/report/results.csv', 0
            FROM jobs
            WHERE status = 'succeeded' AND results_deleted_at IS NULL
              AND EXISTS (SELECT FROM metrics WHERE job_id = jobs.id)
            ON CONFLICT DO NOTHING
            """
        )
    )
    op.drop_column("jobs", "results_bytes")
    op.drop_column("jobs", "results_deleted_at")
