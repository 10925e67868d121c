"""Errors of the store.

StoreError
+-- JobNotFound
+-- JobInUse        it has not ended, or something needs what it has made
+-- KeyNotFound
+-- ModelNotFound   no such base model, and no such model of this owner
+-- DatasetNotFound
+-- DatasetInUse    an unfinished job needs it
+-- ArtifactNotFound
+-- WebhookNotFound
+-- SecretNotFound
+-- DeliveryNotFound
+-- ExportNotFound
+-- RatingNotFound
+-- EvaluationNotFound
+-- PushNotFound
+-- QuotaExceeded   the owner has reached a limit
+-- RequestReused   an Idempotency-Key came with another body
+-- RequestOvertaken    the request was taken for dead, and another has begun in its place
+-- SweepNotFound
+-- WorkerNotFound
+-- IllegalMove     a job cannot go from its status to the requested one
+-- StaleAttempt    a worker wrote for an attempt that it no longer owns
+-- WorkerSuperseded    another worker has started with this one's name
"""

from contract.formatting import format_value, truncate
from contract.status import JobStatus


class StoreError(Exception):
    pass


class JobNotFound(StoreError):
    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id}")


class JobInUse(StoreError):
    pass


class SweepNotFound(StoreError):
    def __init__(self, sweep_id: str) -> None:
        super().__init__(f"no sweep {sweep_id}")


class WorkerNotFound(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no worker {truncate(name, 200)}")


class KeyNotFound(StoreError):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id}")


class ModelNotFound(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no model {truncate(name, 200)}")


class DatasetNotFound(StoreError):
    def __init__(self, dataset_id: str) -> None:
        super().__init__(f"no dataset {dataset_id}")


class DatasetInUse(StoreError):
    def __init__(self, dataset_id: str, job_id: str) -> None:
        super().__init__(f"job {job_id} needs dataset {dataset_id}; cancel the job, or wait for its end")


class QuotaExceeded(StoreError):
    pass


class RequestReused(StoreError):
    def __init__(self, key: str) -> None:
        super().__init__(
            f"Idempotency-Key: got {format_value(key)}, which came with another body before; give each request its own"
        )


class RequestOvertaken(StoreError):
    def __init__(self) -> None:
        super().__init__(
            "another request of this kind has begun in the place of this one; send it again in a few seconds"
        )


class ArtifactNotFound(StoreError):
    def __init__(self, job_id: str, name: str, why: str = "") -> None:
        super().__init__(f"job {job_id} has no artifact {name}{why}")


class WebhookNotFound(StoreError):
    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"no webhook {webhook_id}")


class SecretNotFound(StoreError):
    def __init__(self, name: str) -> None:
        super().__init__(f"no secret {name}")


class DeliveryNotFound(StoreError):
    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"no delivery {delivery_id}")


class ExportNotFound(StoreError):
    def __init__(self, job_id: str, export_id: str) -> None:
        super().__init__(f"job {job_id} has no export {export_id}")


class RatingNotFound(StoreError):
    def __init__(self, job_id: str, rating_id: str) -> None:
        super().__init__(f"job {job_id} has no rating {rating_id}")


class EvaluationNotFound(StoreError):
    def __init__(self, evaluation_id: str, job_id: str | None = None) -> None:
        super().__init__(f"{f'job {job_id} has ' if job_id else ''}no evaluation {evaluation_id}")


class PushNotFound(StoreError):
    def __init__(self, job_id: str, push_id: str) -> None:
        super().__init__(f"job {job_id} has no push {push_id}")


class IllegalMove(StoreError):
    def __init__(self, job_id: str, current: str, target: JobStatus, instead: str = "") -> None:
        super().__init__(f"job {job_id} is {current} and cannot become {target}{instead}")


class StaleAttempt(StoreError):
    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} at job {job_id} has ended for the service; it may write nothing more")


class WorkerSuperseded(StoreError):
    def __init__(self, worker: str) -> None:
        super().__init__(f"another worker has begun as {worker}; give each a name of its own by FINETUNED_WORKER")
