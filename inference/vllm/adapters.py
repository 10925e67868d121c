"""The adapters that vLLM has loaded, each converted to the portable form, which vLLM takes."""

import asyncio
import itertools
import logging
import shutil
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.failure import FailureCode, InputError
from contract.model import portable_adapter
from contract.model.earlier_adapter import CONFIG
from contract.recipe import Recipe
from inference.vllm.wire import BASE, Vllm, VllmError
from trainer.infrastructure import is_infrastructure, is_out_of_memory
from trainer.tools.portable import read_portable, write_portable

log = logging.getLogger(__name__)

_ENGINE_FAILED = "EngineCore"
"""vLLM says so where its engine has ended, and not of an adapter."""


@dataclass(eq=False)
class _Loaded:
    name: str
    """A new one each time: vLLM keeps what it has computed with an adapter by the adapter's name."""
    folder: Path
    users: int = 0


class VllmAdapters:
    """Those used longest ago make room."""

    def __init__(self, vllm: Vllm, model: Path, folder: Path, most: int) -> None:
        """`folder` gets the converted ones."""
        self._vllm = vllm
        self._model = model
        self._folder = folder
        self._most = most
        self._loaded: OrderedDict[Path, _Loaded] = OrderedDict()
        """The adapter used last is at the end."""
        self._numbers = itertools.count()
        self._one_load = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def using(self, adapter: Path | None) -> AsyncIterator[str]:
        """vLLM's name of the adapter, or of the base. Waits while others use all that can be loaded. Raises InputError
        for an adapter that vLLM cannot answer with, and what Vllm raises."""
        if adapter is None:
            yield BASE
            return
        while (loaded := self._loaded.get(adapter)) is None:
            # To its end, even if nobody waits for it any more: vLLM may have it already.
            await asyncio.shield(asyncio.ensure_future(self._load(adapter)))
        self._loaded.move_to_end(adapter)
        loaded.users += 1
        try:
            yield loaded.name
        finally:
            loaded.users -= 1
            self._freed.set()

    async def _load(self, adapter: Path) -> None:
        async with self._one_load:
            if adapter in self._loaded:
                return
            await self._make_room()
            name = f"adapter-{next(self._numbers)}"
            folder = self._folder / name
            try:
                await asyncio.to_thread(self._convert, adapter, folder)
                await self._vllm.load_adapter(name, str(folder))
            except VllmError as error:
                shutil.rmtree(folder)
                raise _unless_its_own_fault(error) from error
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._loaded[adapter] = _Loaded(name, folder)

    async def _make_room(self) -> None:
        while len(self._loaded) >= self._most:
            unused = next((adapter for adapter, loaded in self._loaded.items() if not loaded.users), None)
            if unused is None:
                self._freed.clear()
                await self._freed.wait()
                continue
            gone = self._loaded.pop(unused)
            await self._vllm.unload_adapter(gone.name)
            shutil.rmtree(gone.folder)

    def _convert(self, adapter: Path, folder: Path) -> None:
        """Raises InputError."""
        if not (adapter / CONFIG).is_file():
            message = f"model: its adapter has no {CONFIG}; delete the model and train it again"
            raise InputError(FailureCode.MODEL_UNSUPPORTED, message, "model")
        recipe = Recipe.model_validate(
            {"model": str(self._model), "dataset": "-", "adapter": {"start_from": str(adapter)}}
        )
        try:
            portable = read_portable(recipe, init="default")
        except InputError as error:
            raise _about_the_model(error) from error
        folder.mkdir(parents=True)
        write_portable(portable, BASE, folder)


def _about_the_model(error: InputError) -> InputError:
    failure = error.failure
    message = failure.message.removeprefix(f"{portable_adapter.PARAM}: ")
    return InputError(FailureCode.MODEL_UNSUPPORTED, f"model: vLLM cannot answer with its adapter: {message}", "model")


def _unless_its_own_fault(error: VllmError) -> Exception:
    machine = is_out_of_memory(error) or is_infrastructure(error) or _ENGINE_FAILED in str(error)
    if machine:
        return error
    message = f'model: vLLM refuses its adapter: {error}; export it with format "merged"'
    return InputError(FailureCode.MODEL_UNSUPPORTED, message, "model")
