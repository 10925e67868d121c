"""Brings Unix sockets to a network: `python relay.py ADDRESS:PORT=SOCKET...` runs until it is stopped."""

import asyncio
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path


async def relay(bindings: list[str]) -> None:
    for binding in bindings:
        place, _, socket = binding.partition("=")
        address, _, port = place.partition(":")
        await asyncio.start_server(partial(join, socket=Path(socket)), address, int(port))
    await asyncio.Event().wait()


async def join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, socket: Path) -> None:
    try:
        answers, questions = await asyncio.open_unix_connection(socket)
    except OSError:  # stopped
        writer.close()
        return
    await asyncio.gather(copy(reader, questions), copy(answers, writer))


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            target.write(data)
            await target.drain()
    target.close()


if __name__ == "__main__":
    asyncio.run(relay(sys.argv[1:]))
