"""Base models and what jobs have trained, to talk to."""

from finetuned._sync.transport import Transport, part
from finetuned.objects.jobs import JobModels

_LONGEST_ANSWER = 600.0


class Models:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def of(self, job_id: str) -> JobModels:
        """Gives the names of a job's models: its base, what it has trained, and its checkpoints, newest first."""
        path = f"/v1/fine_tuning/jobs/{part(job_id)}"
        job = self._transport.json("GET", path)
        checkpoints = self._transport.pages(f"{path}/checkpoints")
        names = [each["fine_tuned_model_checkpoint"] for each in checkpoints]
        return JobModels(job["model"], job["fine_tuned_model"], names)

    def answer(self, model: str, messages: list[dict[str, str]], *, temperature: float = 0.0, seed: int = 0) -> str:
        """Gives a model's answer to a conversation. Its server may have to start first. Raises ServiceFailed while no
        device is free."""
        body = {"model": model, "messages": messages, "temperature": temperature, "seed": seed}
        path = "/v1/chat/completions"
        answer = self._transport.json("POST", path, json=body, timeout=_LONGEST_ANSWER)
        content: str = answer["choices"][0]["message"]["content"]
        return content
