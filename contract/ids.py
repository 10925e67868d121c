"""The ids of what the service keeps: a prefix, and 24 hexadecimal digits.

An id from outside is compared with this form before it reaches the database, because PostgreSQL does not take every
text as a parameter.
"""

import re
import secrets

JOB = "job_"
DATASET = "file-"
SWEEP = "sweep_"
EXPORT = "exp_"
EVALUATION = "eval_"
PUSH = "push_"
KEY = "key_"
WEBHOOK = "wh_"
DELIVERY = "msg_"
RATING = "rat_"
INFERENCE_SERVER = "srv_"

HEX = "[0-9a-f]{24}"
"""What follows the prefix, as a regular expression."""


def new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(12)


def is_id(prefix: str, text: str) -> bool:
    return re.fullmatch(prefix + HEX, text) is not None
