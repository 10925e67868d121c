from datetime import UTC, datetime, timedelta

import pytest

from store.access import keys
from store.models import Key
from store.paging import page
from store.session import Sessions


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_hold_each_row_once_newest_first(sessions: Sessions, limit: int) -> None:
    """Ids break the ties of rows made at the same moment."""
    made_at = datetime.now(UTC)
    with sessions.begin() as session:
        for number in range(6):
            key, _ = keys.create(session, "anna", None, admin=False)
            key.created_at = made_at - timedelta(hours=number // 3)
        expected = sorted(session.query(Key), key=lambda key: (key.created_at, key.id), reverse=True)
        found: list[str] = []
        has_more = True
        while has_more:
            after = found[-1] if found else None
            part = page(keys.list_keys(session, limit + 1, after, "anna"), limit)
            found += [key.id for key in part.rows]
            has_more = part.has_more
    assert found == [key.id for key in expected]
