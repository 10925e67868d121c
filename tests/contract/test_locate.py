import json
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.failure import FailureCode, InputError
from contract.locate import PRIVATE, Folders, locate_dataset, locate_model, public_name, refusal_reason

DIGEST = "ab" * 32


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def models(tmp_path: Path) -> Path:
    write_model(tmp_path / "models" / "tiny")
    return tmp_path / "models"


@pytest.fixture
def folders(models: Path) -> Folders:
    return Folders(models, [])


def service(home: Path, *allowed: Path) -> Folders:
    """As the API and the workers have them."""
    return Folders(home / "models", allowed, home / "datasets", home)


def refused(path: str, folders: Folders) -> None:
    with pytest.raises(InputError, match="no file") as caught:
        locate_dataset(path, folders)
    assert caught.value.failure.code == FailureCode.DATASET_NOT_FOUND


def test_model_is_found_by_its_name(models: Path, folders: Folders) -> None:
    assert locate_model("tiny", folders) == models / "tiny"


def test_hub_id_is_left_to_the_trainer(folders: Folders) -> None:
    assert locate_model("HuggingFaceTB/SmolLM2-135M-Instruct", folders) is None


def test_missing_model_is_told_which_are_there(folders: Folders) -> None:
    with pytest.raises(InputError, match="models there: tiny") as caught:
        locate_model("huge", folders)
    assert caught.value.failure.code == FailureCode.MODEL_NOT_FOUND


def test_weights_that_are_not_safetensors_are_not_loaded(models: Path, folders: Folders) -> None:
    (models / "tiny" / "model.safetensors").rename(models / "tiny" / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        locate_model("tiny", folders)


def test_gguf_is_refused_with_the_command_that_converts_it(models: Path, folders: Folders) -> None:
    (models / "folder").mkdir()
    for file in (models / "small.gguf", models / "folder" / "small.gguf"):
        file.write_bytes(b"GGUF")
    for name, place in {"small.gguf": "small.gguf", "folder": "folder/small.gguf"}.items():
        with pytest.raises(InputError) as caught:
            locate_model(name, folders)
        command = f"python -m trainer.tools.import_gguf {models}/{place} {models}/small"
        assert caught.value.failure.message.endswith(command)
        assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED


def test_model_with_an_adapter_in_it_is_refused(models: Path, folders: Folders) -> None:
    # Where one lies beside the weights, transformers loads it with them, also from a pickle.
    (models / "tiny" / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="has an adapter in it") as caught:
        locate_model("tiny", folders)
    assert caught.value.failure.param == "model"


def test_dataset_outside_the_allowed_folders_is_not_found(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    (tmp_path / "secret.jsonl").write_text("{}")
    (allowed / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    for path in ("../secret.jsonl", str(tmp_path / "secret.jsonl"), "link.jsonl", "missing.jsonl"):
        refused(path, service(tmp_path / "home", allowed))


def test_dataset_is_found_by_relative_or_absolute_path(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}")
    folders = service(tmp_path / "home", tmp_path)
    assert locate_dataset("rows.jsonl", folders) == tmp_path / "rows.jsonl"
    assert locate_dataset(str(tmp_path / "rows.jsonl"), folders) == tmp_path / "rows.jsonl"


def test_home_below_allowed_folders_holds_no_data(tmp_path: Path) -> None:
    home = tmp_path / "home"
    folders = service(home, tmp_path)
    for name in (*PRIVATE, "hub", "anything"):
        (home / name / "below").mkdir(parents=True)
        (home / name / "below" / "rows.jsonl").write_text("{}")
        refused(f"home/{name}/below/rows.jsonl", folders)
        refused(str(home / name / "below" / "rows.jsonl"), folders)
        refused(f"../{name}/below/rows.jsonl", folders)
    (home / "stack.lock").write_text("1")
    refused("home/stack.lock", folders)
    (tmp_path / "link").symlink_to(home / "blobs")
    refused("link/below/rows.jsonl", folders)


def test_home_models_and_datasets_stay_open(tmp_path: Path) -> None:
    home = tmp_path / ".finetuned"
    folders = service(home, tmp_path)
    model = write_model(home / "models" / "tiny")
    (home / "datasets").mkdir()
    rows = home / "datasets" / "rows.jsonl"
    rows.write_text("{}")
    assert locate_dataset(".finetuned/datasets/rows.jsonl", folders) == locate_dataset("rows.jsonl", folders) == rows
    assert locate_model(".finetuned/models/tiny", folders) == locate_model("tiny", folders) == model
    refused(".finetuned/models/tiny/config.json", folders)


def test_run_is_no_model(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_model(home / "runs" / "job" / "merged")
    (home / "models").mkdir()
    (tmp_path / "link").symlink_to(home / "runs" / "job")
    for model in ("home/runs/job/merged", "../runs/job/merged", "./link/merged", str(home / "runs" / "job" / "merged")):
        with pytest.raises(InputError, match="no folder"):
            locate_model(model, service(home, tmp_path))


def test_private_folder_on_another_disk_is_closed(tmp_path: Path) -> None:
    home, disk = tmp_path / "home", tmp_path / "disk"
    home.mkdir()
    (disk / "runs").mkdir(parents=True)
    (disk / "runs" / "rows.jsonl").write_text("{}")
    (disk / "rows.jsonl").write_text("{}")
    (home / "runs").symlink_to(disk / "runs")
    folders = service(home, disk)
    refused("runs/rows.jsonl", folders)
    assert locate_dataset("rows.jsonl", folders) == disk / "rows.jsonl"


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    for name in (".ssh/id", ".netrc", "data/.git/config"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
        refused(name, service(tmp_path / "home", tmp_path))
    # One that the operator names is not hidden.
    assert locate_dataset("id", service(tmp_path / "home", tmp_path / ".ssh")) == tmp_path / ".ssh" / "id"


def test_pipe_is_no_data(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rows.jsonl")
    refused("rows.jsonl", service(tmp_path / "home", tmp_path))


@pytest.mark.parametrize(
    "model", ["../up", "./tiny2", "a/..", "a/../..", "a..b/c", ".hidden/c", "-x/y", "a/b/c", "a/b\n", "é/b"]
)
def test_path_is_no_hub_id(folders: Folders, model: str) -> None:
    with pytest.raises(InputError):
        locate_model(model, folders)


@pytest.mark.parametrize("name", ["x" * 256, "x" * 5000, "a/" * 3000, "loop", "loop/x/y", "nul\0", "file/below/it"])
def test_name_that_the_file_system_refuses_is_missing(models: Path, name: str) -> None:
    (models / "loop").symlink_to(models / "loop")
    (models / "file").touch()
    refused(name, Folders(models, [models]))
    with pytest.raises(InputError) as caught:
        locate_model(name, Folders(models, [models]))
    assert caught.value.failure.code == FailureCode.MODEL_NOT_FOUND
    assert len(caught.value.failure.message) < 1000


def test_model_file_is_not_a_model_folder(models: Path, folders: Folders) -> None:
    (models / "file").touch()
    with pytest.raises(InputError, match="has no config"):
        locate_model("file", folders)


def test_linked_folder_in_models_is_a_model(models: Path, tmp_path: Path) -> None:
    folders = service(tmp_path, tmp_path / "allowed")
    elsewhere = write_model(tmp_path.parent / f"{tmp_path.name}-disk" / "zoo" / "tiny")
    (models / "linked").symlink_to(elsewhere)
    (models / "zoo").symlink_to(elsewhere.parent)
    (models / "org").mkdir()
    (models / "org" / "linked").symlink_to(elsewhere)
    for name in ("linked", "zoo/tiny", "org/linked"):
        assert locate_model(name, folders) == elsewhere
    with pytest.raises(InputError, match="no folder"):
        locate_model(str(elsewhere), folders)
    # That word is the operator's, and not the model's.
    (models / "tiny" / "within").symlink_to(elsewhere)
    assert locate_model("tiny/within", folders) is None  # only a hub may have it


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors", "additional_chat_templates/a.jinja"],
)
@pytest.mark.parametrize("linked", [False, True])
def test_no_link_of_a_model_leads_out(models: Path, tmp_path: Path, name: str, linked: bool) -> None:
    """Neither of a model in the home nor of one that is linked into it."""
    secret = tmp_path / "secret"
    secret.write_text("{}")
    folder = models / "tiny"
    if linked:
        folder = write_model(tmp_path / "disk" / "other")
        (models / "other").symlink_to(folder)
    folders = service(tmp_path, tmp_path / "allowed")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(InputError, match=rf"link {name} that leads out") as caught:
        locate_model(folder.name, folders)
    assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED


def test_model_link_reaches_no_file_of_an_owner(tmp_path: Path) -> None:
    home = tmp_path / "home"
    write_model(tmp_path / "tiny")
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / DIGEST).write_text("{}")
    (tmp_path / "tiny" / "chat_template.jinja").symlink_to(home / "blobs" / DIGEST)
    with pytest.raises(InputError, match="leads out"):
        locate_model("tiny", service(home, tmp_path))


def test_model_folder_around_the_home_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    home = folder / "home"
    (home / "blobs").mkdir(parents=True)
    (home / "blobs" / "x").touch()
    assert locate_model("tiny", service(home, tmp_path)) == folder
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "home/blobs/x"}}))
    with pytest.raises(InputError, match="home/blobs/x"):
        locate_model("tiny", service(home, tmp_path))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "chat_template.jinja").symlink_to("home/blobs/x")
    with pytest.raises(InputError, match="chat_template"):
        locate_model("tiny", service(home, tmp_path))


def test_model_link_reaches_no_hidden_file(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "id").write_text("{}")
    (folder / ".templates").mkdir()
    (folder / ".templates" / "chat").write_text("{}")
    (folder / "chat_template.jinja").symlink_to(".templates/chat")
    assert locate_model("tiny", service(tmp_path / "home", tmp_path)) == folder
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("../.ssh/id")
    with pytest.raises(InputError, match=r"tokenizer\.json that leads out"):
        locate_model("tiny", service(tmp_path / "home", tmp_path))


def test_links_within_allowed_folders_are_followed(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "allowed" / "tiny")
    (tmp_path / "allowed" / "template").write_text("{}")
    (folder / "chat_template.jinja").symlink_to("../template")
    (folder / "dangling.json").symlink_to("../nothing")
    assert locate_model("tiny", service(tmp_path / "home", tmp_path / "allowed")) == folder


def test_model_link_to_an_outside_folder_is_refused(models: Path, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (models / "tiny" / "additional_chat_templates").symlink_to(tmp_path / "templates")
    with pytest.raises(InputError, match="additional_chat_templates that leads out"):
        locate_model("tiny", service(tmp_path))


def test_pipe_among_a_models_files_is_refused(models: Path, folders: Folders) -> None:
    os.mkfifo(models / "tiny" / "chat_template.jinja")
    with pytest.raises(InputError, match=r"chat_template\.jinja in it, which is neither a file nor a folder"):
        locate_model("tiny", folders)


def test_circular_model_links_are_refused(models: Path, folders: Folders) -> None:
    (models / "tiny" / "chat_template.jinja").symlink_to("chat_template.jinja")
    with pytest.raises(InputError, match=r"chat_template\.jinja"):
        locate_model("tiny", folders)


def test_model_without_tokenizer_is_refused(models: Path, folders: Folders) -> None:
    (models / "tiny" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tiny has no tokenizer\.json.*save_pretrained") as caught:
        locate_model("tiny", folders)
    assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED


@pytest.mark.parametrize("shard", ["../../x.safetensors", "/etc/passwd", "part/../../x.safetensors", "part/x"])
def test_shard_outside_of_the_model_is_refused(models: Path, tmp_path: Path, shard: str) -> None:
    (tmp_path / "x").touch()
    (models / "tiny" / "part").mkdir()
    (models / "tiny" / "part" / "x").symlink_to(tmp_path / "x")
    (models / "tiny" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
    with pytest.raises(InputError) as caught:
        locate_model("tiny", service(tmp_path))
    assert caught.value.failure.code == FailureCode.MODEL_UNSUPPORTED


def test_oversized_weight_index_is_refused(models: Path, folders: Folders) -> None:
    with (models / "tiny" / "model.safetensors.index.json").open("wb") as index:
        index.truncate(1 << 30)
    with pytest.raises(InputError, match="more than 64 MiB"):
        locate_model("tiny", folders)


@pytest.mark.parametrize("allowed", ["hub", "hub/models--a--b/snapshots", "hub/models--a--b/snapshots/main"])
def test_snapshot_of_the_hubs_cache_is_a_model(tmp_path: Path, allowed: str) -> None:
    cache = tmp_path / "hub" / "models--a--b"
    snapshot = cache / "snapshots" / "main"
    (cache / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name, digest in (("config.json", "ab" * 20), ("tokenizer.json", "cd" * 20), ("model.safetensors", DIGEST)):
        (cache / "blobs" / digest).write_text("{}")
        (snapshot / name).symlink_to(f"../../blobs/{digest}")
    home = tmp_path / "home"
    assert locate_model(str(snapshot), service(home, tmp_path / allowed)) == snapshot
    (home / "models").mkdir(parents=True)
    (home / "models" / "tiny").symlink_to(snapshot)
    assert locate_model("tiny", service(home)) == snapshot
    # A blob that is itself a link leads out all the same.
    (tmp_path / "secret").write_text("{}")
    (cache / "blobs" / DIGEST).unlink()
    (cache / "blobs" / DIGEST).symlink_to(tmp_path / "secret")
    with pytest.raises(InputError, match="leads out"):
        locate_model("tiny", service(home))


def test_too_wide_allowed_folders_are_refused(tmp_path: Path) -> None:
    home, disk = tmp_path / "home", tmp_path / "disk"
    (home / "datasets" / "mine").mkdir(parents=True)
    (disk / "runs" / "job").mkdir(parents=True)
    (home / "runs").symlink_to(disk / "runs")
    (tmp_path / "root").symlink_to("/")
    system = [Path("/"), Path("/proc"), Path("/sys/class"), Path("/etc/ssl"), Path("/dev")]
    for folder in (*system, tmp_path / "root", home, home / "blobs", home / "other", disk / "runs", disk / "runs/job"):
        assert refusal_reason(folder, home), folder
    for folder in (tmp_path, disk, tmp_path / "missing", home / "datasets", home / "datasets/mine", home / "models"):
        assert refusal_reason(folder, home) is None, folder


FILES = ("home/blobs/a", "home/runs/a", "home/a", "home/datasets/a", "home/models/a", "data/a", "data/.ssh/a", "out/a")
LINKS = ("data/1", "data/2", "home/datasets/1", "data/.ssh/2")
SEGMENTS = ("..", ".", "home", "data", "out", "blobs", "runs", "datasets", "models", ".ssh", "a", "1", "2")


@settings(max_examples=50, deadline=None)
@given(
    targets=st.lists(st.sampled_from([*FILES, *{path.rpartition("/")[0] for path in FILES}, *LINKS]), min_size=4),
    paths=st.lists(st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=5).map("/".join), min_size=5, max_size=10),
    allowed=st.sampled_from(["", "data"]),
)
def test_whatever_the_links_only_open_files_are_found(targets: list[str], paths: list[str], allowed: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        for path in FILES:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).touch()
        for link, target in zip(LINKS, targets, strict=False):
            (root / link).symlink_to(root / target)
        open_files = {root / "home/datasets/a", root / "data/a"} | ({root / "out/a"} if not allowed else set())
        for path in paths:
            for way in (path, str(root / path)):
                try:
                    found = locate_dataset(way, service(root / "home", root / allowed))
                except InputError:
                    found = None
                assert found is None or found in open_files, way


@pytest.mark.parametrize(
    ("model", "folder", "name"),
    [
        ("org/name", None, "org/name"),
        ("org/name", "/models/org/name", "org/name"),
        ("tiny", "/models/tiny", "tiny"),
        ("/data/models/tiny", "/data/models/tiny", "tiny"),
        ("mine", "/hub/models--org--a--b/snapshots/0123", "org/a--b"),
        ("mine", "/hub/models--gpt2/snapshots/0123", "gpt2"),
    ],
)
def test_public_name_is_a_hub_id_or_a_folders_name(model: str, folder: str | None, name: str) -> None:
    assert public_name(model, None if folder is None else Path(folder)) == name
