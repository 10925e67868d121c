"""MLflow, by the six requests of its REST API that a run needs: https://mlflow.org/docs/latest/rest-api.html."""

import base64
import json
import math
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx

from api.http.outgoing import answer_to
from api.tracking.tracker import Point, Sent, TrackerError, parameters, points_after, position_after, run_name
from contract.formatting import truncate
from contract.status import TERMINAL, JobStatus
from store.trackings import Followed, News, Position, last_status

JOB_TAG = "finetuned.job"
_MOST_PARAMS = 100  # of one log-batch
_LONGEST_ANSWER = 4 << 20
_STATUS = {
    JobStatus.QUEUED: "SCHEDULED",
    JobStatus.PAUSED: "SCHEDULED",
    JobStatus.RUNNING: "RUNNING",
    JobStatus.SUCCEEDED: "FINISHED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "KILLED",
}


class Mlflow:
    most_events = 100  # their numbers are fewer than the 1000 that MLflow takes at once
    interval = timedelta(0)
    whole_at_end = False

    def __init__(self, http: httpx.AsyncClient, allow_private: bool, send_seconds: float) -> None:
        self._http = http
        self._allow_private = allow_private
        self.send_seconds = send_seconds

    async def send(self, followed: Followed, secret: str | None, news: News) -> Sent:
        server = _Server(self._http, self._allow_private, followed.place, secret)
        try:
            return await _send(server, followed, news)
        except (KeyError, TypeError, AttributeError) as error:
            raise TrackerError(f"the answer is none of MLflow's: {error!r}; is the url right?") from error


class _Server:
    def __init__(
        self, http: httpx.AsyncClient, allow_private: bool, place: Mapping[str, Any], secret: str | None
    ) -> None:
        self._http, self._allow_private = http, allow_private
        self._url = f"{place['url'].rstrip('/')}/api/2.0/mlflow"
        self.place = place
        self._headers = {"content-type": "application/json", **_authorization(place["username"], secret)}

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        status, answer = await self._request("POST", path, json.dumps(body).encode())
        return _checked(status, answer)

    async def get(self, path: str, **query: str) -> dict[str, Any] | None:
        """None where there is no such thing."""
        status, answer = await self._request("GET", f"{path}?{urlencode(query)}", b"")
        return None if answer.get("error_code") == "RESOURCE_DOES_NOT_EXIST" else _checked(status, answer)

    async def _request(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        url = f"{self._url}/{path}"
        async with answer_to(self._http, method, url, self._headers, body, self._allow_private) as answer:
            read = bytearray()
            async for piece in answer.aiter_bytes():
                read += piece
                if len(read) > _LONGEST_ANSWER:
                    raise TrackerError(f"MLflow answers with more than {_LONGEST_ANSWER} bytes")
        try:
            parsed = json.loads(read)
        except ValueError:
            parsed = None
        return answer.status_code, parsed if isinstance(parsed, dict) else {}


def _authorization(username: str | None, secret: str | None) -> dict[str, str]:
    if secret is None:
        return {}
    if username is None:
        return {"authorization": f"Bearer {secret}"}
    return {"authorization": f"Basic {base64.b64encode(f'{username}:{secret}'.encode()).decode()}"}


def _checked(status: int, answer: dict[str, Any]) -> dict[str, Any]:
    if 200 <= status < 300:
        return answer
    words = " ".join(str(answer[name]) for name in ("error_code", "message") if name in answer)
    raise TrackerError(f"MLflow answers {status}{': ' if words else ''}{truncate(words, 300)}")


async def _send(server: _Server, followed: Followed, news: News) -> Sent:
    run = followed.run or await _find_or_create(server, followed)
    position = followed.position
    if not followed.is_certain or followed.run is None:
        position = await _position_of(server, run, position)
    metrics = [each for point in points_after(position, news) for each in _metrics(point)]
    if metrics:
        await server.post("runs/log-batch", {"run_id": run, "metrics": metrics})
    await _update_status(server, run, news)
    return Sent(run, position_after(position, news))


async def _find_or_create(server: _Server, followed: Followed) -> str:
    """The run of the job, with its parameters. It may be there from a send whose answer was lost."""
    experiment = await _experiment(server)
    run = await _find(server, experiment, followed.job_id) or await _create(server, experiment, followed)
    params = [{"key": key, "value": value} for key, value in parameters(followed.recipe).items()]
    for first in range(0, len(params), _MOST_PARAMS):
        await server.post("runs/log-batch", {"run_id": run, "params": params[first : first + _MOST_PARAMS]})
    return run


async def _experiment(server: _Server) -> str:
    name = server.place["experiment"]
    found = await server.get("experiments/get-by-name", experiment_name=name)
    if found is not None:
        return str(found["experiment"]["experiment_id"])
    try:
        return str((await server.post("experiments/create", {"name": name}))["experiment_id"])
    except TrackerError:
        # Another job may have created it since.
        found = await server.get("experiments/get-by-name", experiment_name=name)
        if found is None:
            raise
        return str(found["experiment"]["experiment_id"])


async def _find(server: _Server, experiment: str, job_id: str) -> str | None:
    query = {"experiment_ids": [experiment], "filter": f"tags.`{JOB_TAG}` = '{job_id}'", "max_results": 1}
    runs = (await server.post("runs/search", query)).get("runs", [])
    return str(runs[0]["info"]["run_id"]) if runs else None


async def _create(server: _Server, experiment: str, followed: Followed) -> str:
    tags = {
        **{key: str(value) for key, value in followed.tags.items()},
        **server.place["tags"],
        "mlflow.user": followed.owner,
        "mlflow.source.name": "finetuned",
        JOB_TAG: followed.job_id,
    }
    body = {
        "experiment_id": experiment,
        "run_name": run_name(followed),
        "start_time": followed.created_ms,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    return str((await server.post("runs/create", body))["run"]["info"]["run_id"])


async def _position_of(server: _Server, run: str, known: Position) -> Position:
    """How far the run is by what MLflow itself has."""
    found = await server.get("runs/get", run_id=run)
    if found is None:
        raise TrackerError(f"MLflow has no run {run} any more")
    last = {each["key"]: int(each.get("step", 0)) for each in found["run"]["data"].get("metrics", [])}
    step, eval_step = last.get("loss", 0), last.get("eval_loss", -1)
    return known._replace(step=max(known.step, step), eval_step=max(known.eval_step, eval_step))


def _metrics(point: Point) -> Iterator[dict[str, Any]]:
    for key, value in point.values.items():
        # As protobuf writes what JSON has no number for: "NaN", "Infinity".
        number = value if math.isfinite(value) else json.dumps(value)
        yield {"key": key, "value": number, "timestamp": int(point.time * 1000), "step": point.step}


async def _update_status(server: _Server, run: str, news: News) -> None:
    reported = last_status(news)
    if reported is None:
        return
    body: dict[str, Any] = {"run_id": run, "status": _STATUS[reported.status]}
    if reported.status in TERMINAL:
        body["end_time"] = int(reported.time * 1000)
    await server.post("runs/update", body)
