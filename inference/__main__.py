"""`python -m inference FOLDER`: answers as FOLDER/server.json says, until it is idle or a signal stops it."""

import logging
import os
import signal
import sys
import threading
from pathlib import Path

from contract.inference import READY, SPEC, Ready, ServerSpec
from contract.model.config import read_model_config
from contract.model.quantisation import find_quantisation
from trainer.environment import hide_package, lasting_imports, prepare_process
from trainer.failures import failure_from, print_error, write_failure


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    folder = Path(sys.argv[1])
    prepare_process()
    try:
        spec = ServerSpec.model_validate_json((folder / SPEC).read_bytes())
        if not _may_need_bitsandbytes(spec.model):
            # PEFT imports it if it is installed, which takes more than a second.
            hide_package("bitsandbytes")
        with lasting_imports():
            from inference.serving import serve  # loads torch

        stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        serve(spec, folder, lambda port: _write(folder / READY, Ready(port=port)), stop)
    except Exception as error:
        print_error(error)
        write_failure(failure_from(error), folder / "error.json")
        return 1
    return 0


def _may_need_bitsandbytes(model: str) -> bool:
    """A hub model may be stored in 4 or 8 bits too. Raises InputError for a folder that cannot be loaded."""
    if not Path(model).is_dir():
        return True
    quantisation = find_quantisation(read_model_config(Path(model)))
    return quantisation is not None and quantisation.method == "bitsandbytes"


def _write(path: Path, ready: Ready) -> None:
    beside = path.with_suffix(".part")
    beside.write_text(ready.model_dump_json())
    os.replace(beside, path)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    os._exit(code)  # threads of readers that are slow would keep the process
