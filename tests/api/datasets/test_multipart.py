from contextlib import suppress

import pytest
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st

from api.datasets.multipart import FormReader
from api.errors import BadForm, InvalidParameter

FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{}\n\r\n--x--\r\n'
LATIN_1 = st.text(st.characters(max_codepoint=255), max_size=400)


def read(content_type: str, body: bytes, pieces: int) -> None:
    form = FormReader(content_type, lambda data: None)
    for start in range(0, len(body), pieces):
        form.feed(body[start : start + pieces])
    form.finish()


def mutated(draw: st.DrawFn) -> bytes:
    cut, inserted = draw(st.integers(0, len(FORM))), draw(st.binary(max_size=20))
    return FORM[:cut] + inserted + FORM[cut + draw(st.integers(0, 5)) :]


@given(
    LATIN_1 | LATIN_1.map("multipart/form-data; boundary={}".format),
    st.composite(mutated)() | st.binary(),
    st.integers(1, 50),
)
@example(f"multipart/form-data; boundary={'b' * 5000}", FORM, 10)
@example('multipart/form-data; boundary=""', FORM, 10)
@example("multipart/form-data; boundary=x", FORM.replace(b"name=", b"*name="), 10)
@example("multipart/form-data; boundary=x", FORM.replace(b"\r\n\r\n", b"\r\nX: " + b"a" * 9000 + b"\r\n\r\n"), 10)
@example("multipart/form-data; boundary=x", FORM.replace(b"\r\n\r\n", b"\r\nX: a" * 20 + b"\r\n\r\n"), 10)
def test_any_form_is_read_or_refused_in_words(content_type: str, body: bytes, pieces: int) -> None:
    with suppress(BadForm, InvalidParameter):
        read(content_type, body, pieces)


@pytest.mark.parametrize("path", ["/datasets", "/v1/files"])
@pytest.mark.parametrize(
    "boundary",
    ["b" * 5000, "b" * 257, '"', "a b", "\xff", "x; boundary=y"],
    ids=["5000", "257", '"', "space", "ff", "two"],
)
def test_odd_boundary_is_refused_by_name(client: TestClient, path: str, boundary: str) -> None:
    kind = f"multipart/form-data; boundary={boundary}".encode("latin-1")
    answer = client.post(path, content=FORM, headers={b"content-type": kind})
    assert answer.status_code == (400 if path.startswith("/v1") else 422), answer.text
    assert answer.json()["error"]["param"] in ("Content-Type", "body")
