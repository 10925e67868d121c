import csv
import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import yaml
from matplotlib import colors, image
from pydantic import SecretStr

from contract.model_card import on_hub
from storage.backends import BucketStorage, FolderStorage
from storage.errors import StorageUnavailable
from store import artifacts
from store.models import Artifact, Lease
from store.scheduling import workers
from store.session import Sessions
from tests.support import s3
from tests.support.fake_trainer import loss
from tests.support.files import write_model
from tests.support.servers import free_port
from tests.worker.publishing.ended_jobs import end, published, run_job
from worker.publishing.publisher import publish_all
from worker.settings import WorkerSettings


@pytest.fixture
def settings(tmp_path: Path, database_url: str, broker_url: str) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr(database_url), broker_url=SecretStr(broker_url), home=tmp_path, worker="worker"
    )


def publish(sessions: Sessions, settings: WorkerSettings) -> None:
    publish_all(sessions, settings, FolderStorage(settings.home))


def test_ended_job_has_log_metrics_curve_card(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    publish(sessions, settings)
    found = published(sessions, job_id)
    kinds = {name: artifact.kind for name, artifact in found.items()}
    assert kinds == {
        "README.md": "card",
        "adapter.tar": "adapter",
        "loss.png": "curve",
        "metrics.csv": "metrics",
        "results.csv": "results",
        "trainer.log": "log",
    }
    for artifact in found.values():
        if not artifacts.is_archive(artifact):
            content = (settings.runs / artifact.path).read_bytes()
            assert (artifact.bytes, artifact.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    with (settings.runs / found["metrics.csv"].path).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["step"], float(row["loss"])) for row in rows] == [("1", loss(1)), ("2", loss(2)), ("3", loss(3))]
    assert (settings.runs / found["results.csv"].path).read_text().splitlines() == [
        "step,train_loss,train_accuracy,train_mean_token_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss,"
        "full_valid_mean_token_accuracy,learning_rate",
        f"1,{loss(1)},,,,,,,0.0001",
        f"2,{loss(2)},,,1.25,,1.25,,0.0001",
        f"3,{loss(3)},,,1.5,,1.5,,0.0001",
    ]


def test_report_is_published_after_run_folder_is_gone(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    shutil.rmtree(settings.runs / job_id)
    end(sessions, job_id)
    publish(sessions, settings)
    assert set(published(sessions, job_id)) == {"README.md", "loss.png", "metrics.csv", "results.csv"}


def test_picture_shows_both_loss_curves(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    publish(sessions, settings)
    picture = image.imread(settings.runs / published(sessions, job_id)["loss.png"].path)
    for color, share in (("#4477aa", 0.8), ("#cc6633", 0.4)):  # of all three steps, and of the last two
        columns = np.flatnonzero((abs(picture[:, :, :3] - colors.to_rgb(color)) < 0.01).all(axis=2).any(axis=0))
        # What the legend shows of a curve is far shorter.
        assert columns.max() - columns.min() > share * picture.shape[1]


def front_matter(card: str) -> dict[str, Any]:
    """As the hub reads it."""
    found: dict[str, Any] = yaml.safe_load(card.split("---\n")[1])
    return found


def test_card_links_a_base_of_the_hub(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings, model="org/base")
    end(sessions, job_id)
    publish(sessions, settings)
    card = (settings.runs / published(sessions, job_id)["README.md"].path).read_text()
    read = front_matter(card)
    assert (read["base_model"], read["base_model_relation"]) == ("org/base", "adapter")
    pushed = on_hub(card, "org/ours", "adapter")
    assert "\n## Use\n\nDownload these files to a folder `adapter`:\n\n```sh\nhf download org/ours " in pushed
    assert "With these files in a folder `adapter`:" in pushed


def test_card_names_base_data_and_use(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    publish(sessions, settings)
    adapter = settings.runs / published(sessions, job_id)["adapter.tar"].path
    card = (adapter / "README.md").read_text()
    assert front_matter(card) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "sft", "finetuned"],
    }
    for reported in (
        "ab" * 32,
        "3 of 3",
        "1.2500, after step 2",
        "PeftModel.from_pretrained",
        '"learning_rate"',
        "fp32",
    ):
        assert reported in card
    assert "\n| torch | 2.0+none |" in card
    assert "](loss.png)" in card
    assert "not trained to its end" not in card
    assert (adapter / "loss.png").exists()
    names = [file.name for file in artifacts.files(published(sessions, job_id)["adapter.tar"])]
    assert names == ["README.md", "adapter_config.json", "loss.png"]


@pytest.mark.parametrize("is_there", [True, False])
def test_card_names_no_folder_of_the_server(
    sessions: Sessions, settings: WorkerSettings, tmp_path: Path, is_there: bool
) -> None:
    settings.allowed_paths.append(tmp_path)
    if is_there:
        write_model(tmp_path / "deep" / "base")
    dataset = {"path": str(tmp_path / "d.jsonl"), "sha256": "ab" * 32, "chat_template": "chatml"}
    held_out = {"dataset": {"path": str(tmp_path / "e.jsonl"), "sha256": "cd" * 32}}
    job_id = run_job(sessions, settings, model=str(tmp_path / "deep/base"), dataset=dataset, evaluation=held_out)
    end(sessions, job_id)
    publish(sessions, settings)
    card = (settings.runs / published(sessions, job_id)["README.md"].path).read_text()
    assert "\nA LoRA adapter for `base`, " in card
    assert 'PreTrainedTokenizerFast.from_pretrained("adapter")' in card
    assert str(tmp_path) not in card
    assert '"path": "e.jsonl"' in card


def test_adapter_waits_for_its_card(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    publish(sessions, settings)
    assert published(sessions, job_id) == {}
    end(sessions, job_id)
    publish(sessions, settings)
    assert "adapter.tar" in published(sessions, job_id)


@pytest.mark.parametrize("name", ["$x^$ <b>", "two\nlines --- # title", "语" * 200, "a|b"])
def test_any_name_makes_a_report(sessions: Sessions, settings: WorkerSettings, name: str) -> None:
    job_id = run_job(sessions, settings, name)
    end(sessions, job_id)
    publish(sessions, settings)
    assert {"loss.png", "README.md"} <= published(sessions, job_id).keys()


def test_job_without_steps_has_no_report(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings, steps=0)
    end(sessions, job_id)
    with sessions.begin() as session:
        assert session.get(Artifact, (job_id, "README.md")) is None


def test_later_attempt_publishes_only_changes(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    publish(sessions, settings)
    end(sessions, job_id)
    assert "trainer.log" in published(sessions, job_id)
    with sessions.begin() as session:
        artifacts.add_end(session, job_id, 2, Path("trainer.log"), 7, report=False)
    assert "trainer.log" not in published(sessions, job_id)
    later = settings.runs / artifacts.run_path(job_id, 2)
    later.mkdir()
    (later / "trainer.log").write_text("another")
    publish(sessions, settings)
    assert published(sessions, job_id)["trainer.log"].sha256 == hashlib.sha256(b"another").hexdigest()


def test_vanished_artifact_is_dropped(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    (settings.runs / artifacts.run_path(job_id, 1) / "trainer.log").unlink()
    end(sessions, job_id)
    publish(sessions, settings)
    assert "trainer.log" not in published(sessions, job_id)
    with sessions.begin() as session:
        assert artifacts.all_published(session, job_id)


def test_link_out_of_the_runs_is_not_published(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    run = settings.runs / artifacts.run_path(job_id, 1)
    (run / "trainer.log").unlink()
    (run / "trainer.log").symlink_to("/etc/hostname")
    (run / "adapter" / "link").symlink_to("/etc/hostname")
    end(sessions, job_id)
    publish(sessions, settings)
    found = published(sessions, job_id)
    assert "trainer.log" not in found
    assert "link" not in [file.name for file in artifacts.files(found["adapter.tar"])]


def test_log_with_a_stubborn_secret_stays_private(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    # No file beside it can have its name and more, as none could be written on a full disk.
    name = f"{'long' * 60}.log"
    (settings.runs / artifacts.run_path(job_id, 1) / name).write_text("hf_planted0123456789")
    with sessions.begin() as session:
        artifacts.add_end(session, job_id, 1, Path(name), 5, report=False)
    publish(sessions, settings)
    assert name not in published(sessions, job_id)
    with sessions.begin() as session:
        assert session.get_one(Artifact, (job_id, name)).published_at is not None


def test_worker_publishes_for_a_silent_one(sessions: Sessions, settings: WorkerSettings) -> None:
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    another = settings.model_copy(update={"worker": "another"})
    publish(sessions, another)
    assert published(sessions, job_id) == {}
    with sessions.begin() as session:
        workers.unregister(session, "worker", "first")
        session.execute(sa.delete(Lease))
        workers.unregister(session, "worker", "first")
    publish(sessions, another)
    assert "trainer.log" in published(sessions, job_id)


def test_unavailable_bucket_delays_publishing(
    sessions: Sessions, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    for name, value in s3.environment(port).items():
        monkeypatch.setenv(name, value)
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    bucket = BucketStorage(s3.BUCKET, "")
    with pytest.raises(StorageUnavailable):
        publish_all(sessions, settings, bucket)
    assert published(sessions, job_id) == {}
    with s3.running_s3(port):
        publish_all(sessions, settings, bucket)
        found = published(sessions, job_id)
        assert b"".join(bucket.read(artifacts.key(found["trainer.log"]))) == b"line\n"
        assert bucket.exists(artifacts.key(found["adapter.tar"], "adapter_config.json"))


def test_stored_archive_is_digested_without_run_folder(
    sessions: Sessions, settings: WorkerSettings, tmp_path: Path
) -> None:
    job_id = run_job(sessions, settings)
    end(sessions, job_id)
    storage = FolderStorage(tmp_path / "storage")
    publish_all(sessions, settings, storage)
    before = published(sessions, job_id)["adapter.tar"]
    with sessions.begin() as session:
        session.execute(sa.update(Artifact).where(Artifact.kind == "adapter").values(sha256=None, published_at=None))
    shutil.rmtree(settings.runs / job_id)
    publish_all(sessions, settings, storage)
    after = published(sessions, job_id)["adapter.tar"]
    assert (after.sha256, after.bytes, after.files) == (before.sha256, before.bytes, before.files)
    content = b"".join(
        artifacts.archive(after, [(file.name, file.bytes) for file in artifacts.files(after)]).read(
            0, after.bytes, lambda name, start, end: storage.read(artifacts.key(after, name), start, end)
        )
    )
    assert hashlib.sha256(content).hexdigest() == after.sha256
