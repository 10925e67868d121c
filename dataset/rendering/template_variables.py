"""What a chat template reads beside messages and tools."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError, meta

from dataset.fields import says_nothing
from dataset.rendering.template_environment import template_environment


def unread_arguments(chat_template: Any, arguments: Mapping[str, Any]) -> list[str]:
    """Those that say something and that the template ignores. `chat_template` is its text, or several by name."""
    templates = [chat_template] if isinstance(chat_template, str) else list(chat_template.values())
    read = frozenset[str]().union(*map(_variables, templates))
    return [name for name, argument in arguments.items() if name not in read and not says_nothing(argument)]


@lru_cache
def _variables(template: str) -> frozenset[str]:
    environment = template_environment()
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(template)))
    except TemplateError:  # Rendering says what is wrong with it.
        return frozenset()
