"""`finetuned webhooks`."""

from itertools import islice
from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned import Client
from finetuned.address import DEFAULT_URL
from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Limit, OneAsJson, Url
from finetuned.cli.terminal import age, list_table, note, print_json, print_list, print_plain

app = typer.Typer(help="Addresses that get a message when a job ends.", invoke_without_command=True)
WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="As `finetuned webhooks` lists it.")]


@app.callback()
def list_webhooks(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List webhooks, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = [each.raw for each in client.webhooks.list()]
    new = on_service("webhooks add URL", url, key)
    print_list(found, as_json, _webhook_table, f"no webhooks yet; add one with: {new}")


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="URL that messages are posted to.")],
    event: Annotated[
        list[str] | None, typer.Option(help="Event such as job.failed; repeatable. Default: every end of a job.")
    ] = None,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a webhook and print its secret, which is shown only now."""
    with Client(url, key=key) as client:
        made = client.webhooks.create(address, event or ())
    if as_json:
        print_json(made.raw)
    else:
        print_plain(made.secret or "")
    test = on_service(f"webhooks test {made.id}", url, key)
    note(f"{made.id} gets {', '.join(made.events)}; try it with: {test}")


@app.command()
def delete(webhook: WebhookId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a webhook and its unsent messages."""
    with Client(url, key=key) as client:
        client.webhooks.delete(webhook)
    if as_json:
        print_json({"id": webhook, "deleted": True})
    else:
        note(f"{webhook} is deleted")


@app.command()
def enable(webhook: WebhookId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Enable a webhook, and send the messages that wait."""
    with Client(url, key=key) as client:
        found = client.webhooks.enable(webhook)
    if as_json:
        print_json(found.raw)
    note(f"{webhook} is enabled")


@app.command()
def disable(webhook: WebhookId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Disable a webhook; its messages wait until it is enabled."""
    with Client(url, key=key) as client:
        found = client.webhooks.disable(webhook)
    if as_json:
        print_json(found.raw)
    note(f"{webhook} is disabled; its messages wait until: {on_service(f'webhooks enable {webhook}', url, key)}")


@app.command()
def retry(
    message: Annotated[str, typer.Argument(metavar="MESSAGE", help="As `finetuned webhooks log` lists it.")],
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Send a message again, now."""
    with Client(url, key=key) as client:
        delivery = client.webhooks.retry(message)
    if as_json:
        print_json(delivery.raw)
    log_it = on_service(f"webhooks log {delivery.webhook_id}", url, key)
    note(f"{message} is being sent; see its result with: {log_it}")


@app.command(name="test")
def ping(webhook: WebhookId, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Send a ping to a webhook."""
    with Client(url, key=key) as client:
        delivery = client.webhooks.test(webhook)
    if as_json:
        print_json(delivery.raw)
    note(f"a ping is being sent; see its result with: {on_service(f'webhooks log {webhook}', url, key)}")


@app.command()
def log(
    webhook: WebhookId, limit: Limit = 20, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """List the messages of a webhook, newest first."""
    with Client(url, key=key) as client:
        found = [each.raw for each in islice(client.webhooks.deliveries(webhook), limit)]
    test = on_service(f"webhooks test {webhook}", url, key)
    print_list(found, as_json, _delivery_table, f"no messages yet; try it with: {test}")


def _webhook_table(webhooks: list[dict[str, Any]]) -> Table:
    table = list_table("webhook", "owner", "address", "events", "enabled", folding=("owner", "address", "events"))
    for each in webhooks:
        enabled = "yes" if each["enabled"] else "no"
        table.add_row(each["id"], each["owner"], one_line(each["url"]), " ".join(each["events"]), enabled)
    return table


def _delivery_table(deliveries: list[dict[str, Any]]) -> Table:
    table = list_table("message", "type", "status", "attempts", "age", "error", folding=("type", "error"))
    for each in deliveries:
        wrong = one_line(each["error"] or "")
        table.add_row(each["id"], each["type"], each["status"], str(each["attempts"]), age(each["created_at"]), wrong)
    return table
