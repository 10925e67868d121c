"""`finetuned webhooks`."""

from itertools import islice
from typing import Annotated, Any

import typer
from rich.table import Table

from finetuned.cli.job_text import one_line
from finetuned.cli.next_command import on_service
from finetuned.cli.options import AsJson, Key, Newest, Url
from finetuned.cli.terminal import age, list_table, print_list, print_plain, tell
from finetuned.client import DEFAULT_URL, Client

app = typer.Typer(help="Addresses that are told when a job ends.", invoke_without_command=True)
WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="As `finetuned webhooks` lists it.")]


@app.callback()
def list_webhooks(ctx: typer.Context, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List webhooks, newest first."""
    if ctx.invoked_subcommand is not None:
        return
    with Client(url, key=key) as client:
        found = list(client.webhooks())
    new = on_service("webhooks add URL", url, key)
    print_list(found, as_json, _webhook_table, f"no webhooks yet; add one with: {new}")


@app.command()
def add(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Where messages are posted to.")],
    event: Annotated[
        list[str] | None, typer.Option(help="Such as job.failed; may be given again. Default: the ends of jobs.")
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Add a webhook; prints its secret, this once."""
    with Client(url, key=key) as client:
        made = client.add_webhook(address, event or ())
    print_plain(made["secret"])
    test = on_service(f"webhooks test {made['id']}", url, key)
    tell(f"{made['id']} is told of {', '.join(made['events'])}; try it with: {test}")


@app.command()
def delete(webhook: WebhookId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Delete a webhook, with what was to be sent to it."""
    with Client(url, key=key) as client:
        client.delete_webhook(webhook)
    tell(f"{webhook} is deleted")


@app.command(name="test")
def ping(webhook: WebhookId, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Send a ping to a webhook."""
    with Client(url, key=key) as client:
        client.test_webhook(webhook)
    tell(f"a ping is on its way; see how it went with: {on_service(f'webhooks log {webhook}', url, key)}")


@app.command()
def log(
    webhook: WebhookId, limit: Newest = 20, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """List what was sent to a webhook, newest first."""
    with Client(url, key=key) as client:
        found = list(islice(client.deliveries(webhook), limit))
    test = on_service(f"webhooks test {webhook}", url, key)
    print_list(found, as_json, _delivery_table, f"nothing was sent yet; try it with: {test}")


def _webhook_table(webhooks: list[dict[str, Any]]) -> Table:
    table = list_table("webhook", "owner", "address", "events", "enabled", folding=("owner", "address", "events"))
    for each in webhooks:
        enabled = "yes" if each["enabled"] else "no"
        table.add_row(each["id"], each["owner"], one_line(each["url"]), " ".join(each["events"]), enabled)
    return table


def _delivery_table(deliveries: list[dict[str, Any]]) -> Table:
    table = list_table(
        "message", "type", "status", "attempts", "age", "what was wrong", folding=("type", "what was wrong")
    )
    for each in deliveries:
        wrong = one_line(each["error"] or "")
        table.add_row(each["id"], each["type"], each["status"], str(each["attempts"]), age(each["created_at"]), wrong)
    return table
