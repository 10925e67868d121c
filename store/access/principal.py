"""The caller of a request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    owner: str
    """The owner of everything that the caller makes."""
    admin: bool
    """Whether the caller may see and change what all owners have."""
    key_id: str | None
    """None where no key is required, or the key is the admin key of the settings."""
    request_id: str

    @property
    def scope(self) -> str | None:
        """The owner whose rows the caller may see; None for all rows."""
        return None if self.admin else self.owner
