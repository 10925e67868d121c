"""Signing in at the dashboard."""

from playwright.sync_api import Page


def sign_in(page: Page, key: str) -> None:
    page.goto("/")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Sign in").click()
