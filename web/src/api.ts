import type { Call } from "./calls";

// Requests to the API, which the page shares its origin with. A signed-in browser sends its cookie by itself.
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
    readonly param: string | null = null,
  ) {
    super(message);
  }
}

// A text as body is sent as it is. With the same key, a POST takes effect once, however often it is sent.
type Options = { signal?: AbortSignal; key?: string };

export const get = <T>(path: string, signal?: AbortSignal): Promise<T> => request("GET", path, undefined, { ...(signal && { signal }) });
export const post = <T>(path: string, body?: unknown, options?: Options): Promise<T> => request("POST", path, body, options);
export const send = <T>({ method, path, body }: Call): Promise<T> => request(method, path, body);
export const remove = <T>(path: string): Promise<T> => request("DELETE", path);

async function request<T>(method: string, path: string, body?: unknown, { signal, key = randomId() }: Options = {}): Promise<T> {
  const isForm = body instanceof FormData;
  const headers: Record<string, string> = { accept: "application/json" };
  if (body !== undefined && !isForm) headers["content-type"] = "application/json";
  // A POST that is sent again after a lost response must not act twice.
  if (method === "POST" && path !== "/session" && path !== "/plans") headers["idempotency-key"] = key;
  let answer: Response;
  try {
    answer = await fetch(path, { method, headers, body: isForm || typeof body === "string" ? body : JSON.stringify(body), ...(signal && { signal }) });
  } catch (error) {
    throw signal?.aborted ? error : unreachable();
  }
  if (answer.status === 204) return undefined as T;
  const content = await answer.json().catch((error: unknown) => {
    if (signal?.aborted) throw error;
    // A refusal may come from a proxy, which speaks no JSON. But half of an answer is none.
    if (answer.ok) throw unreachable();
    return {};
  });
  if (!answer.ok) throw refusal(answer.status, content);
  return content as T;
}

// A file as text.
export async function getText(path: string, signal: AbortSignal, headers: Record<string, string> = {}): Promise<string> {
  const lost = (error: unknown): never => {
    throw signal.aborted ? error : unreachable();
  };
  const answer = await fetch(path, { signal, headers }).catch(lost);
  if (!answer.ok) throw refusal(answer.status, await answer.json().catch(() => ({})));
  return answer.text().catch(lost);
}

export const unreachable = (): ApiError => new ApiError(0, "unreachable", "The service cannot be reached.");

export function refusal(status: number, content: { error?: { code?: string; message?: string; param?: string | null } }): ApiError {
  const { code = "error", message = `The service answered ${status}.`, param = null } = content.error ?? {};
  return new ApiError(status, code, message, param);
}

// crypto.randomUUID wants https, or loopback.
export const randomId = (): string => Array.from(crypto.getRandomValues(new Uint32Array(4)), (part) => part.toString(16)).join("");
