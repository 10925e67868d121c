"""Secrets of owners, which are stored encrypted and given to nobody: trackers and hubs get them from the service."""

from collections.abc import Collection

from sqlalchemy import delete as sa_delete
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from store.access.vault import Unreadable, Vault
from store.errors import QuotaExceeded, SecretNotFound
from store.models import Secret, Webhook

WEBHOOK_PREFIX = "whsec_"
"""What a webhook's signing secret begins with, by Standard Webhooks."""

MOST = 100
"""Most secrets of one owner."""


def put(session: Session, vault: Vault, owner: str, name: str, value: str) -> Secret:
    """Stores a secret, in place of one with that name. Raises QuotaExceeded."""
    names = set(session.scalars(select(Secret.name).where(Secret.owner == owner)))
    if name not in names and len(names) >= MOST:
        raise QuotaExceeded(f"{owner} has {len(names)} secrets, and may have {MOST}; delete one")
    ciphertext = vault.encrypt(_place(owner, name), value)
    row = insert(Secret).values(owner=owner, name=name, ciphertext=ciphertext)
    changed = {"ciphertext": ciphertext, "updated_at": func.now()}
    stored = row.on_conflict_do_update(index_elements=["owner", "name"], set_=changed).returning(Secret)
    return session.scalars(stored, execution_options={"populate_existing": True}).one()


def list_secrets(session: Session, owner: str) -> list[Secret]:
    """By name."""
    return list(session.scalars(select(Secret).where(Secret.owner == owner).order_by(Secret.name)))


def missing(session: Session, owner: str, names: Collection[str]) -> set[str]:
    """Those of the names that the owner has no secret with."""
    found = select(Secret.name).where(Secret.owner == owner, Secret.name.in_(names))
    return set(names) - set(session.scalars(found)) if names else set()


def delete(session: Session, owner: str, name: str) -> None:
    """Raises SecretNotFound."""
    gone = sa_delete(Secret).where(Secret.owner == owner, Secret.name == name).returning(Secret.name)
    if session.scalar(gone) is None:
        raise SecretNotFound(name)


def reveal(session: Session, vault: Vault, owner: str, name: str) -> str:
    """The value. Raises SecretNotFound, Unreadable."""
    secret = session.get(Secret, (owner, name), populate_existing=True)
    if secret is None:
        raise SecretNotFound(name)
    return vault.decrypt(_place(owner, name), secret.ciphertext)


def encrypt_again(session: Session, vault: Vault) -> int:
    """Encrypts with the vault's first key what was encrypted with another one, or, of old webhooks, not at all. Returns
    how many secrets none of the keys decrypts."""
    unreadable = 0
    for secret in session.scalars(select(Secret).with_for_update()):
        try:
            secret.ciphertext = _encrypted_again(vault, _place(secret.owner, secret.name), secret.ciphertext)
        except Unreadable:
            unreadable += 1
    for webhook in session.scalars(select(Webhook).with_for_update()):
        try:
            webhook.secret = _encrypted_again(vault, webhook_place(webhook.id), webhook.secret)
        except Unreadable:
            unreadable += 1
    return unreadable


def _encrypted_again(vault: Vault, place: str, stored: str) -> str:
    if stored.startswith(WEBHOOK_PREFIX):
        return vault.encrypt(place, stored)
    return stored if vault.is_current(stored) else vault.encrypt(place, vault.decrypt(place, stored))


def _place(owner: str, name: str) -> str:
    return f"secret:{owner}/{name}"


def webhook_place(webhook_id: str) -> str:
    """The place of a webhook's signing secret."""
    return f"webhook:{webhook_id}"
