"""Who asks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Principal:
    owner: str
    """Whose is what it makes."""
    admin: bool
    """It may see and change what all owners have."""
    key_id: str | None
    """None where no key was asked for, or it is the settings' own."""
    request_id: str

    @property
    def scope(self) -> str | None:
        """The owner whose rows it may see; None for those of all."""
        return None if self.admin else self.owner
