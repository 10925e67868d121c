"""What whoever writes a model card and whoever pushes it to a hub both know of its text."""

USE = "## Use"
"""The heading above the ways to load the files, which take them from a folder."""


def on_hub(card: str, repo: str, folder: str) -> str:
    """The card with the command that downloads the files from a hub to the folder that its other commands name."""
    download = f"Download these files to a folder `{folder}`:\n\n```sh\nhf download {repo} --local-dir {folder}\n```"
    return card.replace(f"\n{USE}\n", f"\n{USE}\n\n{download}\n", 1)
