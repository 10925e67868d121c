"""Those who send jobs, and cancel, pause and resume them. A request without a response is sent again."""

import random
import sched

import httpx
import sqlalchemy as sa

from benchmarks.soak.orders import Order
from contract.status import TERMINAL
from store.models import Job
from tests.support.service import Service

SECONDS_BETWEEN_JOBS = 0.25
"""On average, while not too many are open."""
SECONDS_BETWEEN_TRIES = 0.5


class Owners:
    def __init__(
        self,
        live: Service,
        engine: sa.Engine,
        orders: list[Order],
        most_open: int,
        agenda: sched.scheduler,
        choose: random.Random,
    ) -> None:
        self._live = live
        self._engine = engine
        self._orders = iter(orders)
        self._most_open = most_open
        self._agenda = agenda
        self._choose = choose
        self.sending = True
        self.unanswered = 0
        """Requests to a service that was away."""

    def begin(self) -> None:
        order = next(self._orders, None)
        if order is None:
            self.sending = False
        else:
            self._send(order)

    def _send(self, order: Order) -> None:
        if self._open() >= self._most_open or (answer := self._post("/jobs", order)) is None:
            self._agenda.enter(SECONDS_BETWEEN_TRIES, 1, self._send, (order,))
            return
        order.job_id = answer.raise_for_status().json()["id"]
        if order.cancel is not None:
            self._agenda.enter(self._choose.expovariate(1 / 2), 1, self._ask, (order, order.cancel))
        elif order.kind == "paused":
            self._agenda.enter(self._choose.expovariate(1 / 1.5), 1, self._ask, (order, "pause"))
        self._agenda.enter(self._choose.expovariate(1 / SECONDS_BETWEEN_JOBS), 1, self.begin)

    def _ask(self, order: Order, what: str) -> None:
        answer = self._post(f"/jobs/{order.job_id}/{what}")
        if answer is None:
            self._agenda.enter(SECONDS_BETWEEN_TRIES, 1, self._ask, (order, what))
        elif answer.status_code == httpx.codes.CONFLICT:
            order.refused = True
        else:
            answer.raise_for_status()
            if what == "pause":
                self._agenda.enter(self._choose.expovariate(1 / 2), 1, self._ask, (order, "resume"))

    def _post(self, path: str, order: Order | None = None) -> httpx.Response | None:
        """None where the API or its database is away. Nobody kills them meanwhile: nothing is half done."""
        recipe = {"model": "tiny", "dataset": "rows.jsonl", **order.recipe} if order else None
        headers = {"x-owner": order.owner} if order else None
        try:
            answer = self._live.client.post(path, json=recipe, headers=headers)
        except httpx.TransportError:
            self.unanswered += 1
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            self.unanswered += 1
            return None
        return answer

    def _open(self) -> float:
        try:
            with self._engine.connect() as connection:
                open_jobs = sa.select(sa.func.count()).select_from(Job).where(Job.status.not_in(TERMINAL))
                return connection.scalar(open_jobs) or 0
        except sa.exc.OperationalError:
            return float("inf")  # as far as one can see
