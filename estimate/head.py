"""Bytes of the output head: logits are computed only for supervised positions, and for a frozen head one chunk at a
time."""

from contract.model.embeddings import is_embedding
from contract.model.loaded_names import Shapes
from estimate.adapter import TrainedParameters
from estimate.architecture import output_head
from estimate.inputs import DeviceKind, PackedRow, SizedModel
from estimate.weights import BYTES_PER_PARAMETER

_CHUNK_BYTES = 64 * 2**20
_CHUNK_BYTES_OF_GPU = 256 * 2**20
"""Chunk sizes of trainer/model/head.py, in bytes of fp32 logits."""


def logits_bytes(kind: DeviceKind, model: SizedModel, row: PackedRow) -> float:
    """A frozen head holds a chunk's log-softmax in fp32 and its logits in as many bytes, and computes the gradient of
    its N input rows at once. A trained head goes through autograd: the log-softmax is kept, and its gradient and that
    of the logits are computed beside it."""
    positions = row.supervised
    rows = 2 * positions * model.architecture.hidden * BYTES_PER_PARAMETER[kind.precision]
    if _is_trained(model.shapes, model.trained):
        return rows + 3 * 4 * positions * model.architecture.vocabulary
    held = _CHUNK_BYTES_OF_GPU if kind.on_gpu else _CHUNK_BYTES
    chunk = min(positions, max(1, held // (4 * model.architecture.vocabulary)))
    return rows + 2 * 4 * chunk * model.architecture.vocabulary


def _is_trained(shapes: Shapes, trained: TrainedParameters) -> bool:
    """Whether the head is trained, if necessary as the embeddings that it is tied to."""
    head = output_head(shapes)
    touched = trained.whole | trained.loras.keys()
    return head in touched if head is not None else any(is_embedding(module) for module in touched)
