// Datasets as the API answers about them, and their upload.
import { refusal, unreachable } from "../../api";

export type Problem = { row: number | null; message: string };

export type Dataset = {
  id: string;
  filename: string;
  bytes: number;
  status: "uploaded" | "processed" | "error";
  status_details: string | null;
  format: string | null;
  rows: number | null;
};

export type DatasetReport = {
  columns: Record<string, string>;
  rows: number;
  examples: number;
  bad_rows: number;
  empty_answers: number;
  duplicates: number;
  duplicate_rows: number[];
  errors: Problem[];
  error_count: number;
  unused_fields: Record<string, number>;
  learned: "answers" | "pairs" | "ratings" | null;
  identical_pairs: number;
  desirable: number;
  undesirable: number;
};

export type DatasetDetail = Dataset & { report: DatasetReport | null };

export type Bucket = { from_tokens: number; to_tokens: number; examples: number };

export type PartLengths = { mean: number; percentiles: Record<string, number> };
export type PairReport = { prompt: PartLengths; chosen: PartLengths; rejected: PartLengths };

export type TokenReport = {
  examples: number;
  complete: boolean;
  supervised_fraction: number | null;
  histogram: Bucket[];
  max_length: number;
  truncated: number;
  dropped: number;
  dropped_rows: number[];
  pairs: PairReport | null;
  problems: Problem[];
};

export type RenderedText = { answer: "chosen" | "rejected" | null; kept: number; tokens: { text: string; supervised: boolean }[] };
export type PreviewExample = { row: number; texts: RenderedText[]; desirable: boolean | null; dropped: boolean; problem: string | null };
export type Preview = { data: PreviewExample[]; has_more: boolean };

// fetch does not say how much of a body has been sent.
export function upload(file: File, progress: (part: number) => void, signal: AbortSignal): Promise<DatasetDetail> {
  const request = new XMLHttpRequest();
  const body = new FormData();
  body.append("file", file);
  return new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new DOMException("", "AbortError"));
    request.onload = () => {
      if (request.status >= 300) reject(refusal(request.status, request.response ?? {}));
      else if (request.response === null) reject(unreachable());
      else resolve(request.response as DatasetDetail);
    };
    signal.addEventListener("abort", () => request.abort());
    request.open("POST", "/datasets");
    request.responseType = "json";
    request.setRequestHeader("accept", "application/json");
    request.send(body);
  });
}

// Neighbouring tokens of one kind, as one piece of text.
export type Run = { text: string; learned: boolean; cut: boolean };

export function runs({ tokens, kept }: Pick<RenderedText, "tokens" | "kept">): Run[] {
  const found: Run[] = [];
  tokens.forEach(({ text, supervised: learned }, index) => {
    const cut = index >= kept;
    const last = found.at(-1);
    if (last && last.learned === learned && last.cut === cut) last.text += text;
    else found.push({ text, learned, cut });
  });
  return found;
}
