"""Bytes of the output head: logits are made for supervised positions alone, and for a frozen head a chunk at a time."""

from contract.model.loaded_names import Shapes
from estimate.activations import Row
from estimate.adapter import Trained
from estimate.architecture import Architecture, head_of, is_embedding
from estimate.weights import BYTES

_CHUNK_BYTES = 64 * 2**20
_CHUNK_BYTES_OF_GPU = 256 * 2**20
"""As trainer/model/loss.py's: of fp32 logits."""


def logits_bytes(
    precision: str, on_gpu: bool, model: Architecture, shapes: Shapes, trained: Trained, row: Row
) -> float:
    """A frozen head holds the log-softmax of a chunk in fp32 and its logits in as many bytes, and makes the gradient of
    its N input rows at once. One that is trained goes through autograd: the log-softmax is kept, its gradient and that
    of the logits are made beside it."""
    positions = row.supervised
    rows = 2 * positions * model.hidden * BYTES[precision]
    if _is_trained(shapes, trained):
        return rows + 3 * 4 * positions * model.vocabulary
    held = _CHUNK_BYTES_OF_GPU if on_gpu else _CHUNK_BYTES
    chunk = min(positions, max(1, held // (4 * model.vocabulary)))
    return rows + 2 * 4 * chunk * model.vocabulary


def _is_trained(shapes: Shapes, trained: Trained) -> bool:
    """Also as the embeddings, where it is they."""
    head = head_of(shapes)
    touched = trained.whole | trained.loras.keys()
    return head in touched if head is not None else any(is_embedding(module) for module in touched)
