import os
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from api.archive import tar_gz


def test_the_archive_holds_the_folders_files_below_its_root(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b").write_text("two")
    (tmp_path / "a").write_bytes(bytes(3_000_000))
    with tarfile.open(fileobj=BytesIO(b"".join(tar_gz(tmp_path, "root")))) as archive:
        assert archive.getnames() == ["root/a", "root/deep/b"]
        assert archive.getmember("root/a").size == 3_000_000


def test_a_reader_that_goes_away_ends_the_writer(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(5_000_000))
    stream = tar_gz(tmp_path, "root")
    next(stream)
    stream.close()  # would hang if the writer did not end


def test_a_folder_that_has_gone_meanwhile_breaks_the_stream_instead_of_shortening_it(tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "big").write_bytes(os.urandom(5_000_000))
    (folder / "next").write_text("small")
    stream = tar_gz(folder, "root")
    next(stream)
    (folder / "next").unlink()
    with pytest.raises(FileNotFoundError):
        list(stream)


@pytest.mark.timeout(20)
def test_a_folder_that_is_not_there_breaks_the_stream(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(tar_gz(tmp_path / "gone", "root"))
