// One streamed answer of POST /v1/chat/completions, as it arrives.
import { type ApiError, refusal, unreachable } from "../../api";
import type { AnswerRequest, ToolCall } from "./messages";

export type Piece = { text?: string; calls?: ToolCall[]; finish?: string; tokens?: number };

type Chunk = {
  error?: { code?: string; message?: string; param?: string | null };
  choices: { delta: { content?: string | null; tool_calls?: (ToolCall & { index: number })[] | null }; finish_reason: string | null }[];
  usage?: { completion_tokens: number } | null;
};

// The service has no room now, and says when to ask again.
export class RetryLater extends Error {
  constructor(
    readonly reason: ApiError,
    readonly seconds: number,
  ) {
    super(reason.message);
  }
}

// Throws ApiError, RetryLater, and what an aborted request throws.
export async function* streamed(request: AnswerRequest, signal: AbortSignal): AsyncGenerator<Piece> {
  for await (const data of events(await ask(request, signal), signal)) {
    if (data === "[DONE]") return;
    const { error, choices, usage } = JSON.parse(data) as Chunk;
    if (error) throw refusal(0, { error });
    const choice = choices[0];
    if (choice?.delta.content) yield { text: choice.delta.content };
    if (choice?.delta.tool_calls?.length) yield { calls: choice.delta.tool_calls.map(({ index: _, ...call }) => call) };
    if (choice?.finish_reason) yield { finish: choice.finish_reason };
    if (usage) yield { tokens: usage.completion_tokens };
  }
  throw unreachable();
}

async function ask(request: AnswerRequest, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const answer = await fetch("/v1/chat/completions", { method: "POST", headers: { "content-type": "application/json" }, body, signal }).catch((error: unknown) => {
    throw signal.aborted ? error : unreachable();
  });
  if (answer.ok && answer.body) return answer.body;
  const reason = refusal(answer.status, await answer.json().catch(() => ({})));
  const seconds = Number(answer.headers.get("retry-after"));
  throw (answer.status === 429 || answer.status === 503) && seconds > 0 ? new RetryLater(reason, seconds) : reason;
}

// The data of each server-sent event. Lines that are comments keep the connection alive.
async function* events(body: ReadableStream<Uint8Array>, signal: AbortSignal): AsyncGenerator<string> {
  const reader = body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch((error: unknown) => {
        throw signal.aborted ? error : unreachable();
      });
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop()!;
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6).trimEnd();
    }
  } finally {
    void reader.cancel().catch(() => undefined);
  }
}
