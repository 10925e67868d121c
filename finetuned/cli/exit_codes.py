"""What the command's exit code says; docs/cli.md has the same table."""

FAILED = 1  # refused, or the job did not succeed
USAGE = 2  # typer's own
UNREACHABLE = 3
INTERRUPTED = 130

MEANINGS = {
    0: "done; for `watch`, the job has succeeded",
    FAILED: "the service refused it, a file cannot be read, or the job failed or was cancelled",
    USAGE: "the command or an option is wrong",
    UNREACHABLE: "no service answers at the address",
    INTERRUPTED: "Ctrl-C",
}
