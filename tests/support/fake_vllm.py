"""vLLM as 0.33.0 is on the wire, on transformers and PEFT in fp32: `fake_vllm.py serve MODEL OPTIONS`.

Besides vLLM's own options it takes `--fault`, and `--says`, a text that every answer is. The requests that it gets are
in requests.jsonl of its folder.
"""

import argparse
import json
import math
import os
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

FAULTS = {
    "unsupported": "(EngineCore pid=7) ValueError: Model architectures ['TinyForCausalLM'] are not supported for now.",
    "memory": "(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
}
"""With which it ends at the start."""
CONSEQUENCE = "(APIServer pid=6) RuntimeError: Engine core initialization failed. See root cause above."
RAW_MINIMUM = -9999.0


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    for text in ("uds", "served-model-name", "fault", "says"):
        parser.add_argument(f"--{text}")
    for number in ("max-lora-rank", "max-loras", "max-cpu-loras", "max-num-seqs", "sse-keep-alive-interval"):
        parser.add_argument(f"--{number}", type=int)
    for flag in ("enable-lora", "disable-uvicorn-access-log", "enforce-eager"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--load-format", choices=["safetensors"], required=True)
    parser.add_argument("--generation-config", choices=["vllm"], required=True)
    parser.add_argument("--max-model-len", choices=["auto"], required=True)
    return parser.parse_args()


class Refusal(Exception):
    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        kinds = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}
        self.status = status
        self.body = {"error": {"message": message, "type": kinds[status], "param": param, "code": status}}


class Models:
    """The base and the adapters, each as a model of its own."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.torch = torch
        self.arguments = arguments
        self.load: Callable[[], Any] = lambda: AutoModelForCausalLM.from_pretrained(
            arguments.model, dtype=torch.float32
        ).eval()
        self.by_name = {arguments.served_model_name: self.load()}
        self.base = self.by_name[arguments.served_model_name]
        self.length: int = self.base.config.max_position_embeddings
        self.one_at_a_time = threading.Lock()
        self.says: list[int] = []
        """Tokens of every answer, in place of the model's."""
        if arguments.says:
            self.says = AutoTokenizer.from_pretrained(arguments.model)(arguments.says)["input_ids"]

    def add(self, name: str, path: str) -> None:
        from peft import PeftModel

        if name in self.by_name:
            raise Refusal(400, f"The lora adapter '{name}' has already been loaded.")
        try:
            config = json.loads(Path(path, "adapter_config.json").read_bytes())
        except FileNotFoundError:
            raise Refusal(404, f"Loading lora {name} failed: No adapter found for {path}") from None
        problems = []
        if config.get("use_dora"):
            problems.append("vLLM does not yet support DoRA.")
        if config.get("modules_to_save"):
            problems.append(f"Unsupported modules_to_save: {config['modules_to_save']}")
        if config["r"] > self.arguments.max_lora_rank:
            most = self.arguments.max_lora_rank
            problems.append(f"LoRA rank {config['r']} is greater than max_lora_rank {most}.")
        if problems:
            raise Refusal(500, f"Call to add_lora method failed: {' '.join(problems)}")
        with self.one_at_a_time:
            self.by_name[name] = PeftModel.from_pretrained(self.load(), path).eval()

    def remove(self, name: str) -> None:
        if self.by_name.pop(name, None) is None:
            raise Refusal(404, f"The lora adapter '{name}' cannot be found.")

    def logprobs(self, name: str, tokens: list[int]) -> Any:
        """Of the token after each of them."""
        with self.one_at_a_time, self.torch.inference_mode():
            logits = self.by_name[name](self.torch.tensor([tokens]), use_cache=False).logits[0]
        return self.torch.log_softmax(logits.float(), dim=-1)

    def check(self, body: dict[str, Any]) -> None:
        if body["model"] not in self.by_name:
            raise Refusal(404, f"The model `{body['model']}` does not exist.", "model")
        if not 0 < body.get("top_p", 1) <= 1:
            raise Refusal(400, f"top_p must be in (0, 1], got {body['top_p']}.", "top_p")
        if len(body["prompt"]) + body["max_tokens"] > self.length:
            raise Refusal(400, f"This model's maximum context length is {self.length} tokens.", "max_tokens")

    def generate(self, body: dict[str, Any]) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
        """Each token, its log probabilities, and why the answer ends with it."""
        torch, tokens = self.torch, [*body["prompt"]]
        numbers = torch.Generator()
        if "seed" in body:
            numbers.manual_seed(body["seed"])
        else:
            numbers.seed()
        says = [*self.says, 2] if self.says else []
        for count in range(1, body["max_tokens"] + 1):
            logprobs = self.logprobs(body["model"], tokens)[-1]
            allowed = torch.full_like(logprobs, -math.inf)
            allowed[says[count - 1 : count] or body.get("allowed_token_ids") or slice(None)] = 0
            if body.get("temperature", 1) == 0:
                token = int((logprobs + allowed).argmax())
            else:
                chances = torch.softmax((logprobs + allowed) / body.get("temperature", 1), dim=-1)
                token = int(torch.multinomial(chances, 1, generator=numbers))
            tokens.append(token)
            ends = token in body.get("stop_token_ids", ()) or (not body.get("ignore_eos") and token == 2)
            finish = "stop" if ends else "length" if count == body["max_tokens"] else None
            yield token, self._describe(logprobs, token, body.get("logprobs")), finish
            if finish:
                return

    def _describe(self, logprobs: Any, token: int, wanted: int | None) -> dict[str, Any] | None:
        if wanted is None:
            return None
        most_likely = logprobs.topk(wanted).indices.tolist()
        top = {f"token_id:{each}": float(logprobs[each]) for each in dict.fromkeys([token, *most_likely])}
        return {
            "text_offset": [0],
            "token_logprobs": [max(float(logprobs[token]), RAW_MINIMUM)],
            "tokens": [f"token_id:{token}"],
            "top_logprobs": [top],
        }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    models: Models
    fault: str

    def do_GET(self) -> None:
        if self._is_ours():
            base = {"id": self.models.arguments.served_model_name, "max_model_len": self.models.length}
            self._reply(200, {"object": "list", "data": [base]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._is_ours():
            return
        note({"path": self.path, **body})
        try:
            if self.path == "/v1/load_lora_adapter":
                self.models.add(body["lora_name"], body["lora_path"])
                self._reply(200, "Success")
            elif self.path == "/v1/unload_lora_adapter":
                self.models.remove(body["lora_name"])
                self._reply(200, "Success")
            elif body.get("stream"):
                self._stream(body)
            else:
                self._whole(body)
        except Refusal as refusal:
            self._reply(refusal.status, refusal.body)

    def _is_ours(self) -> bool:
        if self.headers["authorization"] == f"Bearer {os.environ['VLLM_API_KEY']}":
            return True
        self._reply(401, {"error": "Unauthorized"})
        return False

    def _reply(self, status: int, body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, body: dict[str, Any]) -> None:
        assert body["return_token_ids"]
        assert body["return_tokens_as_token_ids"]
        self.models.check(body)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            self._events(body)
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except BrokenPipeError:
            note({"aborted": body["model"]})
            self.close_connection = True

    def _events(self, body: dict[str, Any]) -> None:
        self._chunk(b": keep-alive\n\n")
        if self.fault == "refuses":
            self._chunk(f"data: {json.dumps(Refusal(400, 'out-of-vocab token ids').body)}\n\n".encode())
            return
        for count, (token, logprobs, finish) in enumerate(self.models.generate(body), 1):
            if self.fault == "dies" and count == 3:
                os._exit(1)
            if self.fault == "fails" and count == 3:
                self._chunk(f"data: {json.dumps(Refusal(500, 'Internal server error').body)}\n\n".encode())
                return
            choice = {
                "index": 0,
                "text": "not read",
                "logprobs": logprobs,
                "finish_reason": finish,
                "token_ids": [token],
            }
            chunk = {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}
            self._chunk(f"data: {json.dumps(chunk)}\n\n".encode())

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _whole(self, body: dict[str, Any]) -> None:
        self.models.check(body)
        prompt = body["prompt"]
        given = self.models.logprobs(body["model"], prompt)
        of_prompt: list[Any] = [None]
        for place, token in enumerate(prompt[1:]):
            of_prompt.append({str(token): {"logprob": float(given[place][token]), "rank": 1, "decoded_token": "?"}})
        ((token, logprobs, finish),) = self.models.generate(body)
        choice = {"index": 0, "text": "?", "logprobs": logprobs, "finish_reason": finish, "token_ids": [token]}
        self._reply(200, {"id": "cmpl-1", "choices": [choice | {"prompt_logprobs": of_prompt}]})

    def address_string(self) -> str:
        return "socket"

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def note(what: dict[str, Any]) -> None:
    with Path("requests.jsonl").open("a") as file:
        file.write(json.dumps(what) + "\n")


def main() -> None:
    arguments = read_arguments()
    note({"arguments": sys.argv[1:], "updates": os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"]})
    if arguments.fault in FAULTS:
        sys.exit(f"{FAULTS[arguments.fault]}\n{CONSEQUENCE}")
    if arguments.fault == "slow":
        time.sleep(600)
    Handler.models, Handler.fault = Models(arguments), arguments.fault or ""
    with Server(arguments.uds, Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
