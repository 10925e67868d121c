// Messages as OpenAI's API has them, and what is sent for an answer.
export type ToolCall = { id?: string; type: "function"; function: { name: string; arguments: string } };

export type Message = { role: string; content: string | null; tool_calls?: ToolCall[] } & Record<string, unknown>;

// What a question is asked with besides the conversation: tools, and arguments of the chat template.
export type Extras = { tools?: unknown[]; chat_template_kwargs?: Record<string, unknown> };

export type AnswerRequest = Extras & {
  model: string;
  messages: Message[];
  temperature: number;
  top_p: number;
  max_tokens: number;
  seed: number;
};

// The answer as a message and as a row of a dataset has it: with the tag that the template wrote before the thoughts.
// Without that tag a template takes the thoughts for something that is no part of the answer.
export function withOpenTag(text: string): string {
  const end = text.indexOf("</think>");
  return end >= 0 && !text.slice(0, end).includes("<think>") ? `<think>\n${text}` : text;
}

// Thoughts come before the answer, as the model writes them. A template may have written the opening tag.
export function withoutThoughts(text: string): { thoughts: string; answer: string } {
  const end = text.indexOf("</think>");
  if (end >= 0) return { thoughts: text.slice(0, end).replace(/^\s*<think>/, "").trim(), answer: text.slice(end + 8).trimStart() };
  const begun = /^\s*<think>/.exec(text);
  return begun ? { thoughts: text.slice(begun[0].length).trim(), answer: "" } : { thoughts: "", answer: text };
}
