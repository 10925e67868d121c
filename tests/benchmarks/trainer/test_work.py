from benchmarks.trainer.work import Shape, full_length_rows, half_padded_rows, padding_share


def shape(micro_batch: int) -> Shape:
    return Shape(
        steps=1, documents=4, micro_batch=micro_batch, ranks=1, length=100, precision="fp32", learning_rate=1e-3
    )


def test_padding_follows_the_longest_document() -> None:
    assert padding_share([10, 30, 40, 40], shape(4)) == 1 - 120 / 160
    assert padding_share([10, 30, 40, 40], shape(2)) == 1 - 120 / 140
    assert padding_share([10, 30, 40, 40], shape(1)) == 0


def test_our_own_examples_become_conversations_of_every_length() -> None:
    turns = [len(row["messages"]) // 2 for row in half_padded_rows(None)[:200]]
    assert set(turns) == {1, 2, 3, 4, 5, 7, 9}
    assert half_padded_rows(None) == half_padded_rows(None)


def test_texts_have_the_requested_number_and_length() -> None:
    texts = [row["text"] for row in full_length_rows(length=8192, count=40)]
    assert [len(text) for text in texts] == [8 * 8192] * 40
