"""Archives become plain tar files: the publishing process digests again those that were published before."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_plain_tar"
down_revision = "20261130_results_artifact"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        sa.text(
            """
            UPDATE artifacts
            SET name = replace(name, '.tar.gz', '.tar'), sha256 = NULL,
                published_at = CASE WHEN sha256 IS NULL THEN published_at END
            WHERE name LIKE '%.tar.gz'
            """
        )
    )
    for column in ("source", "artifact"):
        op.execute(sa.text(f"UPDATE exports SET {column} = replace({column}, '.tar.gz', '.tar')"))
    op.drop_column("artifacts", "crc32")
