"""Patterns of text fields, and a description of each for error messages."""

TEXT = r"^[^\x00]*$"
SHA256 = r"^[0-9a-f]{64}$"
MODULE = r"^[A-Za-z0-9_.-]{1,200}$"
# Without a lookahead, which pydantic's expressions do not have. A name of only dots would be a folder in a path.
OWNER = r"^\.*[A-Za-z0-9_@-][A-Za-z0-9_.@-]*$"
OWNER_OR_ALL = r"^(\.*[A-Za-z0-9_@-][A-Za-z0-9_.@-]*|\*)$"
LONGEST_OWNER = 100
SUFFIX = r"^[A-Za-z0-9_.-]{1,64}$"
PURPOSE = r"^[A-Za-z0-9_-]*$"
SECRET = r"^[A-Za-z0-9_-]{1,64}$"
# Printable ASCII without spaces around it: a line break in a header's value would begin another header.
SECRET_VALUE = r"^[!-~]([ -~]*[!-~])?$"
WANDB_NAME = r"^[A-Za-z0-9_.-]{1,128}$"
TAG_KEY = r"^[A-Za-z0-9_./ -]{1,250}$"
ARTIFACT = r"^[A-Za-z0-9_-]{1,90}\.tar$"
SHARD_SIZE = r"^[1-9][0-9]{0,3}(MB|GB)$"
PROFILE = r"^[A-Za-z0-9_.-]{1,64}$"
URL = r"^[\x21-\x7e]*$"
HUB_REPO = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}$"
HUB_FILE = r"^[^\x00-\x1f\\]{1,500}$"
HUB_REVISION = r"^[A-Za-z0-9][A-Za-z0-9_./-]{0,200}$"
IDEMPOTENCY_KEY = r"^[\x21-\x7e]{1,255}$"

DESCRIPTIONS = {
    TEXT: "text without NUL characters",
    SHA256: "64 hexadecimal digits, 0 to 9 and a to f",
    MODULE: "1 to 200 letters (a to z), digits, or any of . _ -",
    OWNER: "1 to 100 letters (a to z), digits, or any of . _ @ -, and not dots alone",
    OWNER_OR_ALL: "1 to 100 letters (a to z), digits, or any of . _ @ -, and not dots alone; or * alone",
    SUFFIX: "1 to 64 letters (a to z), digits, or any of . _ -",
    PURPOSE: "letters (a to z), digits, or any of _ -",
    SECRET: "1 to 64 letters (a to z), digits, or any of _ -",
    SECRET_VALUE: "printable ASCII characters, without spaces around them",
    WANDB_NAME: "1 to 128 letters (a to z), digits, or any of . _ -",
    TAG_KEY: "1 to 250 letters (a to z), digits, spaces, or any of . _ / -",
    ARTIFACT: 'the name of an artifact that ends in .tar, such as "adapter.tar"',
    SHARD_SIZE: 'a whole number of MB or GB, such as "500MB" or "2GB"',
    PROFILE: "1 to 64 letters (a to z), digits, or any of . _ -",
    URL: "a URL without spaces, its other than ASCII characters percent-encoded",
    HUB_REPO: 'an owner and a name, such as "org/name"',
    HUB_FILE: 'a path of 1 to 500 characters with "/" between its folders, such as "data/train.jsonl"',
    HUB_REVISION: 'a branch, a tag or a commit, such as "main"',
    IDEMPOTENCY_KEY: "1 to 255 visible ASCII characters, without spaces",
}
