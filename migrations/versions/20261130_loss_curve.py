"""Jobs that have ended keep the losses that the live table shows, which took 24 looks into an index each time."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "20261130_loss_curve"
down_revision = "20261130_key_expiry"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("loss_curve", ARRAY(sa.REAL())))
    op.execute(
        """
        UPDATE jobs SET loss_curve = (
            SELECT array_agg(chosen.loss::real ORDER BY number)
            FROM (SELECT step FROM metrics WHERE job_id = jobs.id ORDER BY step DESC LIMIT 1) AS last (step),
            LATERAL generate_series(1, least(24, last.step)) AS number,
            LATERAL (
                SELECT loss FROM metrics
                WHERE job_id = jobs.id AND step >= number * last.step::bigint / least(24, last.step)
                ORDER BY step LIMIT 1
            ) AS chosen
        ) WHERE finished_at IS NOT NULL
        """
    )
