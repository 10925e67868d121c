"""The formats of datasets, and the fields of rows that a recipe may map to columns.

Not in the recipe's module: whoever reads a dataset in a process of its own need not build the recipe's models.
"""

from typing import Literal

DatasetFormat = Literal[
    "preference",
    "messages",
    "sharegpt",
    "self_instruct",
    "alpaca",
    "prompt_completion",
    "belle",
    "chinese_vicuna",
    "text",
]
DatasetField = Literal[
    "messages",
    "conversations",
    "tools",
    "system",
    "instruction",
    "instances",
    "input",
    "output",
    "history",
    "target",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "text",
]
