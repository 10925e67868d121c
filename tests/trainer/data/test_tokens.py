import pytest
import torch

from dataset.document import Document
from trainer.data.tokens import TokenDocuments, flatten, truncate_documents


def test_documents_are_what_went_in() -> None:
    given = [
        Document([5, 6, 7, 8], [False, True, False, True]),
        Document([], []),
        Document([1, 2], [False, False]),
        Document([9, 8, 7], [False, True, True]),
    ]
    tokens = flatten([given[:2], [], given[2:]])
    assert tokens.examples.tolist() == [0, 2, 2, 4]
    lengths, targets = truncate_documents(tokens, max_length=3)
    assert lengths.tolist() == [2, 0, 0, 3]
    assert targets.tolist() == [1, 0, 0, 2]
    rows = torch.tensor([0, 3])
    documents = TokenDocuments(tokens, rows, lengths[rows], targets[rows])
    cut_to = [Document([5, 6], [False, True]), given[3]]
    assert (list(documents), documents.targets) == (cut_to, 3)
    assert (list(documents[1:]), documents[1:].targets, documents[-1]) == (cut_to[1:], 2, given[3])
    assert list(documents[::2]) == cut_to[:1]
    with pytest.raises(IndexError):
        documents[2]
