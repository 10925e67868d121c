"""Steps keep the accuracies and rewards that the trainer measures, and checkpoints those of their evaluation."""

import sqlalchemy as sa
from alembic import op

revision = "20261130_scores"
down_revision = "20261130_router_loss"
branch_labels = None
depends_on = None

NAMES = (
    "token_accuracy",
    "reward_accuracy",
    "reward_margin",
    "chosen_reward",
    "rejected_reward",
    "chosen_tokens",
    "rejected_tokens",
)


def upgrade() -> None:
    for name in NAMES:
        op.add_column("metrics", sa.Column(name, sa.Double()))
    for name in ("reward_accuracy", "reward_margin"):
        op.add_column("artifacts", sa.Column(name, sa.Double()))
