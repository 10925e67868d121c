"""The page knows each method's options and learning rate as the contract has them."""

import json
from pathlib import Path
from typing import get_args

from contract.method import LEARNING_RATES, Method, MethodType

METHODS = Path(__file__).parents[2] / "web" / "src" / "recipe" / "methods.json"


def test_page_has_the_defaults_of_each_method() -> None:
    assert json.loads(METHODS.read_text()) == {
        name: {"learning_rate": LEARNING_RATES[name], "options": Method(type=name).options}
        for name in get_args(MethodType)
    }
