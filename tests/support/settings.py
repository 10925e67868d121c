"""Settings that every API of the tests has."""

from pydantic import SecretStr

from store.access.vault import Vault

SECRET_KEY = SecretStr("a key of the tests that encrypts secrets")
VAULT = Vault(SECRET_KEY.get_secret_value())
