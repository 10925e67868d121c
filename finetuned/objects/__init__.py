"""What the service answers, as frozen dataclasses.

Plain dataclasses, because pydantic would be the package's heaviest dependency. A field that a newer service adds is
passed over, and is still in `raw`; one that an older service lacks is None or empty.
"""
