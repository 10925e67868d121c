import json
from datetime import UTC, datetime, timedelta

from tests.finetuned.command_line import finetuned
from tests.finetuned.fake_api import FakeApi

KEY = {
    "id": "key_1",
    "owner": "anna",
    "name": "laptop",
    "admin": False,
    "hint": "wxyz",
    "created_at": "2026-01-02T03:04:05Z",
    "revoked_at": None,
}


def test_keys_are_made_listed_and_revoked(api: FakeApi) -> None:
    api.answers["POST /keys"] = (201, {**KEY, "secret": "sk-ft-once"})
    revoked = {**KEY, "id": "key_0", "owner": "boss", "admin": True, "revoked_at": "2026-01-02T03:04:05Z"}
    api.answers["GET /keys"] = (200, {"data": [KEY, revoked], "has_more": False})
    api.answers["DELETE /keys/key_1"] = (200, {**KEY, "revoked_at": "2026-01-02T03:04:05Z"})
    here = ("--url", api.url)
    made = finetuned("keys", "create", "--owner", "anna", "--name", "laptop", *here, FINETUNED_API_KEY="sk-ft-admin")
    assert (made.returncode, made.stdout) == (0, "sk-ft-once\n")
    assert "key_1 of anna" in made.stderr
    assert json.loads(api.bodies[-1]) == {"owner": "anna", "name": "laptop", "admin": False}
    assert api.authorizations[-1] == "Bearer sk-ft-admin"
    listed = finetuned("keys", *here, COLUMNS="200").stdout.splitlines()
    (anna,) = [line for line in listed if "key_1" in line]
    (boss,) = [line for line in listed if "key_0" in line]
    assert "...wxyz" in anna
    assert ("yes" in anna, "yes" in boss) == (False, True)
    assert (anna.count(" ago"), boss.count(" ago")) == (0, 1)
    assert "revoked" in boss
    api.answers["GET /keys"] = (200, {"data": [{**KEY, "expires_at": "2126-01-02T03:04:05Z"}], "has_more": False})
    assert "until 2126-01-02" in finetuned("keys", *here, COLUMNS="200").stdout
    finetuned("keys", "create", "--owner", "anna", "--days", "30", *here)
    expires = datetime.fromisoformat(json.loads(api.bodies[-1])["expires_at"])
    assert timedelta(days=29) < expires - datetime.now(UTC) <= timedelta(days=30)
    assert "key_1 of anna is revoked" in finetuned("keys", "revoke", "key_1", *here).stderr


def test_admin_key_needs_its_flag(api: FakeApi) -> None:
    api.answers["POST /keys"] = (201, {**KEY, "secret": "sk-ft-once"})
    finetuned("keys", "create", "--owner", "boss", "--admin", "--url", api.url)
    assert json.loads(api.bodies[-1]) == {"owner": "boss", "name": None, "admin": True}
    nobodys = finetuned("keys", "create", "--url", api.url)
    assert nobodys.returncode == 2
    assert "--owner" in nobodys.stderr
    assert len(api.bodies) == 1


def test_empty_key_list_says_how_to_make_one(api: FakeApi) -> None:
    api.answers["GET /keys"] = (200, {"data": [], "has_more": False})
    listed = finetuned("keys", "--url", api.url)
    assert (listed.returncode, listed.stdout) == (0, "")
    assert "finetuned keys create --owner NAME" in listed.stderr
