"""`finetuned submit`, `finetuned clone` and `finetuned plan`."""

from typing import Annotated

import typer

from finetuned import Client, Job
from finetuned.address import DEFAULT_URL
from finetuned.cli.jobs import JobId, watch_to_the_end
from finetuned.cli.next_command import on_service
from finetuned.cli.options import Key, OneAsJson, Owner, Url, owner_or_user
from finetuned.cli.plan_text import show_plan
from finetuned.cli.recipes import edit_until_accepted, read_recipe, with_changes
from finetuned.cli.terminal import err, note, out, print_json, print_plain

RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE.json", help="File of the recipe; - is stdin.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Field to set, such as schedule.epochs=3; repeatable."),
]
Watch = Annotated[bool, typer.Option("--watch", help="Watch the job until it ends.")]


def submit(  # parameters: each is an option of the command
    recipe: RecipeFile,
    changes: Changes = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Submit nothing: print the plan, or what is wrong.")
    ] = False,
    owner: Owner = None,
    watch: Watch = False,
    force: Annotated[bool, typer.Option("--force", help="Submit even if it will not fit into memory.")] = False,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a job and print its id."""
    body = read_recipe(recipe, changes or ())
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        if dry_run:
            _print_plan(client, body, as_json)
            return
        job = client.jobs.create(body, force)
        if as_json:
            print_json(job.raw)
        else:
            print_plain(job.id)
        _watch_or_advise(client, job, watch)


def clone(  # parameters: each is an option of the command
    job: JobId,
    changes: Changes = None,
    edit: Annotated[
        bool, typer.Option("--edit", help="Edit the recipe in $EDITOR first; an error leads back into it.")
    ] = False,
    owner: Owner = None,
    watch: Watch = False,
    as_json: OneAsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Submit a job's recipe again, with changes."""
    with Client(url, key=key, owner=owner_or_user(owner, key)) as client:
        recipe = with_changes(client.jobs.get(job).recipe, changes or ())
        if edit:
            made = client.jobs.get(edit_until_accepted(recipe, lambda body: client.jobs.create(body).id))
        else:
            made = client.jobs.create(recipe)
        if as_json:
            print_json(made.raw)
        else:
            print_plain(made.id)
        _watch_or_advise(client, made, watch)


def _watch_or_advise(client: Client, job: Job, watch: bool) -> None:
    if watch:
        watch_to_the_end(client, job.id, err)
    else:
        note(f"{job.status}; watch it with: {on_service(f'watch {job.id}', client.url, client.key)}")


def plan(
    recipe: RecipeFile, changes: Changes = None, as_json: OneAsJson = False, url: Url = DEFAULT_URL, key: Key = None
) -> None:
    """Estimate memory, time and disk of a recipe, without training."""
    with Client(url, key=key) as client:
        _print_plan(client, read_recipe(recipe, changes or ()), as_json)


def _print_plan(client: Client, body: bytes, as_json: bool) -> None:
    found = client.plans.create(body).raw
    if as_json:
        print_json(found)
    else:
        show_plan(found, out)
