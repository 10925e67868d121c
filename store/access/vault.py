"""Encrypts the secrets that the database keeps."""

import base64
import hashlib
import json

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

SHORTEST_KEY = 32


class Unreadable(Exception):
    """A secret that was encrypted with another key, or for something else."""

    def __init__(self) -> None:
        super().__init__("it was stored with another FINETUNED_SECRET_KEY; store it again, or bring the old key back")


class Vault:
    """Fernet (AES-128-CBC with HMAC-SHA256) under the first of the service's keys; the others still decrypt.

    A ciphertext contains the place that it belongs to and decrypts for that place alone, so a row that is copied to
    another owner reveals nothing.
    """

    def __init__(self, keys: str) -> None:
        """`keys` are separated by commas, and random. Raises ValueError for a short one."""
        texts = [text.strip() for text in keys.split(",")]
        if any(len(text) < SHORTEST_KEY for text in texts):
            raise ValueError(f"a key has at least {SHORTEST_KEY} characters; make one with: openssl rand -base64 32")
        fernets = [Fernet(base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())) for text in texts]
        self._first, self._all = fernets[0], MultiFernet(fernets)

    def encrypt(self, place: str, value: str) -> str:
        return self._first.encrypt(json.dumps([place, value]).encode()).decode()

    def decrypt(self, place: str, ciphertext: str) -> str:
        """Raises Unreadable."""
        try:
            found, value = json.loads(self._all.decrypt(ciphertext))
        except InvalidToken as error:
            raise Unreadable from error
        if found != place:
            raise Unreadable
        return str(value)

    def is_current(self, ciphertext: str) -> bool:
        """Whether it was encrypted with the first key."""
        try:
            self._first.decrypt(ciphertext)
        except InvalidToken:
            return False
        return True
