"""POST /plans tells what a recipe would take, and POST /jobs refuses what cannot fit."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from fastapi.testclient import TestClient

from api.jobs.turns import Turns
from contract import events
from contract.formatting import sentence
from contract.machine import Gpu, Machine
from contract.model.target_modules import EXPERT_SKIPPED, ROUTER_SKIPPED
from contract.recipe import Recipe
from contract.status import JobStatus
from store.jobs import jobs, progress, transitions
from store.scheduling import workers
from store.session import Sessions
from tests.estimate.llamas import PARAMETERS, write_llama
from tests.support.events import metric
from tests.support.files import write_tokenizer, write_weights
from tests.support.jobs import LEASE
from tests.support.waiting import until

GIB = 2**30
RECIPE: dict[str, Any] = {"model": "llama", "dataset": "rows.jsonl"}
LONG = {"messages": [{"role": "user", "content": "?" * 900}, {"role": "assistant", "content": "!" * 100}]}


@pytest.fixture(autouse=True)
def llama(home: Path) -> Path:
    """Llama 2 7B, as far as its headers tell, with a tokenizer of bytes."""
    folder = home / "models" / "llama"
    write_tokenizer(folder)
    write_llama(folder)
    return folder


def machine(gib: int, name: str = "NVIDIA A10", count: int = 1) -> Machine:
    gpus = [
        Gpu(uuid=f"GPU-{name}-{number}", name=name, memory_bytes=gib * GIB, compute_capability=(8, 6))
        for number in range(count)
    ]
    return Machine(gpus=gpus, cores=8, cpu_bf16=False)


def register(sessions: Sessions, *machines: Machine) -> None:
    with sessions.begin() as session:
        for number, each in enumerate(machines):
            workers.register(session, f"worker-{number}", "first", "localhost", each)


def plan(client: TestClient, **fields: Any) -> dict[str, Any]:
    answer = client.post("/plans", json={**RECIPE, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def submit_llama(client: TestClient, query: str = "", **fields: Any) -> Any:
    return client.post(f"/jobs{query}", json={**RECIPE, **fields})


def test_plan_tells_parameters_steps_tokens_memory_and_disk(client: TestClient, sessions: Sessions) -> None:
    register(sessions, machine(80, "NVIDIA A100"), machine(8))
    reported = plan(client, adapter={"target_modules": ["q_proj", "v_proj"]}, evaluation={"fraction": 0.4})
    trainable = 32 * 2 * 16 * 8192
    assert reported["parameters"] == {
        "total": PARAMETERS + trainable,
        "trainable": trainable,
        "by_module": [
            {"name": name, "modules": 32, "parameters": trainable // 2, "fraction": 32 * 4096**2 / PARAMETERS}
            for name in ("q_proj", "v_proj")
        ],
        "left_out": [],
    }
    # "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n" is 28 bytes and marks.
    assert reported["work"] == {
        "train_examples": 2,
        "effective_batch_size": 8,
        "steps": 3,
        "tokens": 6 * 28,
        "reference_tokens": 0,
    }
    large, small = reported["devices"]
    assert (large["device"], large["precision"], large["fits"]) == ("NVIDIA A100", "bf16", True)
    assert (small["device"], small["available"], small["fits"]) == ("NVIDIA A10", 8 * GIB, False)
    assert large["memory"]["weights"] == 2 * PARAMETERS
    assert small["suggestions"] == [{"base_bits": 4}]
    assert reported["disk"]["total"] > reported["disk"]["adapters"] == reported["disk"]["adapter"] > 4 * trainable


MIXTURE = {
    "model.embed_tokens.weight": [4096, 4],
    "model.layers.0.self_attn.q_proj.weight": [8, 4],
    "model.layers.0.mlp.gate.weight": [2, 4],
    "model.layers.0.mlp.experts.0.up_proj.weight": [6, 4],
    "model.layers.0.mlp.experts.1.up_proj.weight": [6, 4],
}
WEIGHTS = sum(math.prod(shape) for shape in MIXTURE.values())


@pytest.fixture
def mixture(llama: Path) -> str:
    """The headers of a Qwen3-MoE."""
    folder = llama.parent / "mixture"
    write_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3_moe"}')
    write_weights(folder / "model.safetensors", MIXTURE)
    return folder.name


@pytest.fixture
def gptq(home: Path) -> str:
    """One layer of a llama, whose only linear module is stored in 4 bits."""
    folder = home / "models" / "gptq"
    write_tokenizer(folder)
    stored = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": stored}))
    packed = {"qweight": [8, 64], "qzeros": [2, 8], "scales": [2, 64]}
    parts = {f"model.layers.0.self_attn.q_proj.{name}": shape for name, shape in packed.items()}
    write_weights(folder / "model.safetensors", {"model.embed_tokens.weight": [259, 64], **parts}, "BF16")
    return folder.name


def test_dequantised_base_is_planned_and_warned_of(client: TestClient, gptq: str) -> None:
    reported = plan(client, model=gptq, adapter={"r": 2})
    adapted = {"name": "q_proj", "modules": 1, "parameters": 2 * 128, "fraction": 64 * 64 / (259 * 64 + 64 * 64)}
    assert reported["parameters"]["by_module"] == [adapted]
    assert reported["parameters"]["total"] == 259 * 64 + 64 * 64 + 2 * 128
    others, packed = 2 * 259 * 64, 2 * (8 * 64 + 2 * 8 + 2 * 64)
    assert reported["base"] == {
        "stored_as": "GPTQ in 4 bits",
        "loaded_as": "dequantised",
        "file_bytes": others + packed,
        "loaded_bytes": others + 2 * 64 * 64,
    }
    (warning,) = (each for each in reported["warnings"] if each.startswith("model:"))
    assert warning.startswith("model: its files are GPTQ in 4 bits; it is dequantised and trained in 16 bits: ")
    again = plan(client, model=gptq, adapter={"r": 2}, base_bits=8)["base"]
    assert again["loaded_bytes"] == others + 64 * 64 + 4 * 64


def test_base_in_8_bits_is_planned_as_it_is_stored(client: TestClient, home: Path) -> None:
    folder = home / "models" / "int8"
    write_tokenizer(folder)
    stored = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": stored}))
    module = "model.layers.0.self_attn.q_proj"
    shapes = {"model.embed_tokens.weight": [259, 64], f"{module}.weight": [64, 64], f"{module}.SCB": [64]}
    dtypes = {f"{module}.weight": "I8", f"{module}.SCB": "F32"}
    write_weights(folder / "model.safetensors", shapes, "BF16", dtypes)
    reported = plan(client, model="int8", adapter={"r": 2})
    size = 2 * 259 * 64 + 64 * 64 + 4 * 64
    expected = {"stored_as": "bitsandbytes in 8 bits", "loaded_as": "as_stored", "file_bytes": size}
    assert reported["base"] == expected | {"loaded_bytes": size}
    assert not [each for each in reported["warnings"] if each.startswith("model:")]
    refused = client.post("/jobs", json=RECIPE | {"model": "int8", "base_bits": 4})
    assert refused.json()["error"]["param"] == "base_bits"
    job = client.post("/jobs", json=RECIPE | {"model": "int8", "adapter": {"r": 2}}).json()
    assert job["recipe"]["base_bits"] == 8


def test_skipped_experts_are_planned_and_warned_of(client: TestClient, mixture: str) -> None:
    parameters = plan(client, model=mixture, adapter={"r": 2})["parameters"]
    assert parameters["by_module"] == [
        {"name": "q_proj", "modules": 1, "parameters": 2 * (8 + 4), "fraction": 32 / WEIGHTS}
    ]
    assert parameters["left_out"] == [
        {"reason": sentence(EXPERT_SKIPPED), "names": ["up_proj"], "parameters": 48},
        {"reason": sentence(ROUTER_SKIPPED), "names": ["gate"], "parameters": 8},
    ]
    job = submit_llama(client, model=mixture).json()["id"]
    client.post(f"/jobs/{job}/cancel")
    said = client.get(f"/jobs/{job}/events").text
    assert f"adapter.target_modules: {EXPERT_SKIPPED}: up_proj" in said
    assert f"adapter.target_modules: {ROUTER_SKIPPED}: gate" in said


def test_adapted_experts_are_planned_with_their_share(client: TestClient, mixture: str) -> None:
    parameters = plan(client, model=mixture, adapter={"r": 2, "experts": True})["parameters"]
    assert parameters["by_module"][1] == {
        "name": "up_proj",
        "modules": 1,
        "parameters": 2 * 2 * (6 + 4),
        "fraction": 48 / WEIGHTS,
    }
    assert [each["names"] for each in parameters["left_out"]] == [["gate"]]


def test_name_of_excluded_experts_is_refused(client: TestClient, mixture: str) -> None:
    answer = submit_llama(client, model=mixture, adapter={"target_modules": ["q_proj", "up_proj"], "experts": False})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "adapter.target_modules")
    assert EXPERT_SKIPPED in answer.json()["error"]["message"]


def test_after_each_change_that_is_told_it_fits(client: TestClient, sessions: Sessions, home: Path) -> None:
    (home / "datasets" / "rows.jsonl").write_text("".join(json.dumps(LONG) + "\n" for _ in range(40)))
    register(sessions, machine(24, count=2))
    (device,) = plan(client)["devices"]
    assert device["fits"] is False
    assert len(device["suggestions"]) >= 3
    for change in device["suggestions"]:
        (changed,) = plan(client, **change)["devices"]
        assert changed["fits"] is not False, change


def test_too_large_recipe_is_refused_unless_forced(client: TestClient, sessions: Sessions) -> None:
    register(sessions, machine(8))
    answer = submit_llama(client)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("does_not_fit", "model")
    assert "12.6 GiB of it for the base's weights" in error["message"]
    assert 'would fit with {"base_bits": 4}' in error["message"]
    assert submit_llama(client, base_bits=4).status_code == 201
    assert submit_llama(client, "?force=true").status_code == 201


def test_sweep_with_too_large_run_is_refused_unless_forced(client: TestClient, sessions: Sessions) -> None:
    register(sessions, machine(8))
    sweep = {"recipe": RECIPE, "grid": {"base_bits": [4, None]}}
    error = client.post("/sweeps", json=sweep).json()["error"]
    assert (error["code"], error["param"]) == ("does_not_fit", "recipe.model")
    assert "force=true takes it as it is; the first run with this is base_bits=null" in error["message"]
    assert client.get("/jobs").json()["data"] == []
    assert client.post("/sweeps?force=true", json=sweep).status_code == 201


def test_openai_sdk_can_force_a_recipe(client: TestClient, sessions: Sessions) -> None:
    register(sessions, machine(8))
    with openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", http_client=client) as sdk:
        with pytest.raises(openai.BadRequestError, match="force=true") as refused:
            sdk.fine_tuning.jobs.create(model="llama", training_file="rows.jsonl")
        assert refused.value.code == "does_not_fit"
        job = sdk.fine_tuning.jobs.create(model="llama", training_file="rows.jsonl", extra_query={"force": "true"})
    assert job.status == "queued"


def test_recipe_that_fits_one_machine_is_accepted(client: TestClient, sessions: Sessions) -> None:
    register(sessions, machine(8), machine(80, "NVIDIA A100"))
    assert submit_llama(client).status_code == 201


def test_short_examples_fit_where_long_ones_would_not(client: TestClient, sessions: Sessions, home: Path) -> None:
    register(sessions, machine(24))
    assert submit_llama(client).status_code == 201
    (home / "datasets" / "rows.jsonl").write_text("".join(json.dumps(LONG) + "\n" for _ in range(40)))
    refused = submit_llama(client).json()["error"]
    assert (refused["code"], refused["param"]) == ("does_not_fit", "batch")


def test_unknown_machines_refuse_nothing(client: TestClient) -> None:
    reported = plan(client)
    assert (reported["devices"], reported["unknown"]["memory"]) == ([], "no worker has reported its machine")
    assert submit_llama(client).status_code == 201


@pytest.mark.parametrize(
    ("model", "why"),
    [("org/name", "is not on the server"), ("tiny", "has no num_attention_heads")],
)
def test_unknown_figures_are_null_with_a_reason(
    client: TestClient, sessions: Sessions, home: Path, model: str, why: str
) -> None:
    register(sessions, machine(8))
    reported = plan(client, model=model)
    assert why in " ".join(reported["unknown"].values())
    assert (reported["parameters"] is None) == (model == "org/name")
    assert (reported["work"]["tokens"] is None) == (model == "org/name")
    assert submit_llama(client, model=model).status_code == 201


def test_recipe_that_does_less_is_warned_of(client: TestClient) -> None:
    schedule = {"max_steps": 100, "epochs": 2}
    end = "the run ends after 2 steps, which are 2 epochs; leave schedule.epochs out for more"
    warning = f"schedule.max_steps: got 100; {end}"
    assert plan(client, schedule=schedule)["warnings"] == [warning]
    job_id = submit_llama(client, schedule=schedule).json()["id"]
    page = client.get(f"/jobs/{job_id}/events", headers={"accept": "application/json"}).json()["data"]
    assert [each["data"]["message"] for each in page if each["type"] == "log"] == [warning]


def test_max_steps_without_epochs_are_all_of_them(client: TestClient) -> None:
    found = plan(client, schedule={"max_steps": 100})
    assert (found["work"]["steps"], found["warnings"]) == (100, [])


def test_plan_refuses_what_a_job_would(client: TestClient) -> None:
    answer = client.post("/plans", json={**RECIPE, "adapter": {"target_modules": ["query"]}})
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "target_modules_unmatched"
    assert client.get("/jobs").json()["data"] == []


def test_planned_time_follows_jobs_of_the_same_kind(client: TestClient, sessions: Sessions) -> None:
    register(sessions, machine(80, "NVIDIA A100"))
    assert plan(client)["devices"][0]["eta_seconds"] is None
    for speed, device in ((100.0, "NVIDIA A100"), (300.0, "NVIDIA A100"), (200.0, "NVIDIA A100"), (1.0, "Tesla T4")):
        have_trained(sessions, speed, device)
    reported = plan(client)
    (device,) = reported["devices"]
    assert (device["tokens_per_second"], device["measured_jobs"]) == (pytest.approx(200), 3)
    # The first step's tokens took a second each, at 1 a second.
    cold_start = device["cold_start_seconds"]
    assert cold_start == pytest.approx(600 * (1 - 1 / 200))
    assert device["eta_seconds"] == pytest.approx(reported["work"]["tokens"] / 200 + cold_start)
    for unlike in ("gradient_checkpointing", "torch_compile"):
        reported = plan(client, **{unlike: True})
        assert reported["devices"][0]["eta_seconds"] is reported["devices"][0]["cold_start_seconds"] is None
        assert "no job like this one" in reported["unknown"]["cold_start_seconds"]


def test_plan_tells_what_the_latest_job_found(client: TestClient, sessions: Sessions) -> None:
    unknown = plan(client)
    assert unknown["packed"] is unknown["packing"] is None
    assert "its started event" in unknown["unknown"]["packing"]
    have_trained(sessions, 1.0, "NVIDIA A100")
    reported = plan(client)
    assert (reported["packed"], reported["packing"]) == (False, "one by one, since a small one leaks")
    assert "packing" not in reported["unknown"]


def have_trained(sessions: Sessions, speed: float, device: str) -> None:
    """A job of three steps; its first is slow."""
    with sessions.begin() as session:
        job = jobs.create(session, Recipe.model_validate(RECIPE))
        values = {"attempt": 1, "lease_expires_at": "2100-01-01T00:00:00Z"}
        transitions.move(session, job.id, JobStatus.RUNNING, values=values)
        reported: list[events.Event] = [started(device)]
        reported += [metric(step, step, tokens=600, speed=1.0 if step == 1 else speed) for step in (1, 2, 3)]
        progress.record(session, job.id, 1, reported, LEASE)
        transitions.move(session, job.id, JobStatus.SUCCEEDED)


def started(device: str) -> events.StartedEvent:
    return events.StartedEvent(
        time=0,
        total_steps=3,
        train_examples=3,
        eval_examples=0,
        supervised_tokens=3,
        truncated_examples=0,
        dropped_examples=0,
        trainable_parameters=1,
        total_parameters=2,
        world_size=1,
        packed=False,
        packing="one by one, since a small one leaks",
        device=device,
        precision="bf16",
        versions={},
    )


def test_expressions_of_one_owner_delay_no_other(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contract.expression._SECONDS", 1.0)
    monkeypatch.setattr(client.app_state["services"].models, "_turns", Turns(most_waiting=3, patience=20.0))

    def plan(owner: str, expression: str) -> int:
        recipe = {**RECIPE, "adapter": {"target_modules": expression}}
        return client.post("/plans", json=recipe, headers={"x-owner": owner}).status_code

    assert plan("anna", r".*\.up_proj") == 200  # its rows are tried and measured once
    with ThreadPoolExecutor(12) as threads:
        bobs = [threads.submit(plan, "bob", "(.*)*" + "x" * number) for number in range(1, 13)]
        until(matching)
        assert plan("anna", r".*\.q_proj") == 200
        assert not all(each.done() for each in bobs)
        assert matching() <= 1
    statuses = sorted(each.result() for each in bobs)
    assert statuses == [422] * 4 + [429] * 8


def matching() -> int:
    """Processes of this one that match an expression."""
    children = psutil.Process().children()
    return sum("re.fullmatch" in " ".join(command_of(child)) for child in children)


def command_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []
