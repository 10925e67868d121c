// What the tests use of Node. All of its types would change those of the browser, such as of setTimeout.
declare module "node:test" {
  export function test(name: string, run: () => void | Promise<void>): void;
}

declare module "node:assert/strict" {
  const assert: {
    ok(value: unknown, message?: string): asserts value;
    equal<T>(actual: unknown, expected: T, message?: string): asserts actual is T;
    deepEqual<T>(actual: unknown, expected: T, message?: string): asserts actual is T;
    match(value: string, expression: RegExp): void;
    doesNotMatch(value: string, expression: RegExp): void;
  };
  export default assert;
}

declare module "node:fs" {
  export function writeFileSync(file: string, text: string): void;
}

declare module "node:http" {
  type Answer = { writeHead(status: number, headers: Record<string, string>): void; write(text: string): void; destroy(): void };
  type Server = { listen(port: number, host: string, listening: () => void): void; address(): { port: number }; closeAllConnections(): void; close(): void };
  export function createServer(answer: (request: unknown, answer: Answer) => void): Server;
}

declare const process: { env: Record<string, string | undefined> };
