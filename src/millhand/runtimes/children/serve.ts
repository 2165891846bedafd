// What the Bun and the Deno child have in common: wait for one job on descriptor 3, run it, answer on descriptor 4.
// A frame is a little-endian unsigned 32-bit length of what follows, one byte of kind, and the payload.
//
// The child is started ahead and waits in a blocking read; it runs one job and ends. User code lives in the job
// directory (the working directory) under the path of its script, so relative imports resolve as written.

export interface Job {
  id: string;
  code: string;
  path: string | null;
  entrypoint: string;
  params: [name: string, kind: string][]; // in the order of the signature
  args: Record<string, unknown>;
  env: Record<string, string>;
  modules: Record<string, string>; // sources of imported scripts, by path
  node_modules: string | null;
}

/** The few things in which the two differ. */
export interface Host {
  jobDir: string;
  bootDir: string; // frames of the stack from here are ours, not the user's
  read(into: Uint8Array): number; // 0 at the end
  write(bytes: Uint8Array): number;
  setUp(job: Job): void; // its environment, and what else it needs
  makeDir(path: string): void;
  writeFile(path: string, text: string): void;
  link(target: string, path: string): void;
  onUncaught(report: (error: unknown) => void): void;
  readFile(path: string): string;
  exit(code: number): never;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const HEADER = 5;
const kind = (letter: string) => letter.charCodeAt(0);

function send(host: Host, letter: string, text = ""): void {
  const payload = encoder.encode(text);
  const frame = new Uint8Array(HEADER + payload.length);
  new DataView(frame.buffer).setUint32(0, payload.length + 1, true);
  frame[4] = kind(letter);
  frame.set(payload, HEADER);
  for (let sent = 0; sent < frame.length; ) sent += host.write(frame.subarray(sent));
}

function readExactly(host: Host, size: number): Uint8Array | null {
  const bytes = new Uint8Array(size);
  for (let got = 0; got < size; ) {
    const n = host.read(bytes.subarray(got));
    if (!n) return null;
    got += n;
  }
  return bytes;
}

function receiveJob(host: Host): Job | null {
  const header = readExactly(host, HEADER);
  if (header === null || header[4] !== kind("J")) return null;
  const payload = readExactly(host, new DataView(header.buffer).getUint32(0, true) - 1);
  return payload && JSON.parse(decoder.decode(payload));
}

function place(host: Host, script: string, source: string): string {
  const file = `${host.jobDir}/${script}.ts`;
  const slash = script.lastIndexOf("/");
  if (slash > 0) host.makeDir(`${host.jobDir}/${script.slice(0, slash)}`);
  host.writeFile(file, source);
  return file;
}

function convert(value: unknown, type: string): unknown {
  const isTime = type === "datetime" && (typeof value === "string" || typeof value === "number");
  return isTime ? new Date(value as string | number) : value;
}

function toJson(value: unknown): string {
  const text = JSON.stringify(value, (_, item) => (typeof item === "bigint" ? item.toString() : item));
  return text === undefined ? "null" : text; // undefined, functions and symbols have no JSON
}

const isGenerator = (value: any) =>
  typeof value === "object" && value !== null &&
  (typeof value[Symbol.asyncIterator] === "function" ||
    (typeof value[Symbol.iterator] === "function" && typeof value.next === "function"));

/** Send each piece as it comes; the result is what the generator returns. */
async function stream(host: Host, pieces: any): Promise<unknown> {
  const iterator = (pieces[Symbol.asyncIterator] ?? pieces[Symbol.iterator]).call(pieces);
  const utf8 = new TextDecoder();
  while (true) {
    const { done, value } = await iterator.next();
    if (done) return value;
    const text = value instanceof Uint8Array ? utf8.decode(value, { stream: true }) : value;
    send(host, "C", typeof text === "string" ? text : toJson(text));
  }
}

function userFrames(host: Host, stack: unknown): string {
  if (typeof stack !== "string") return "";
  return stack
    .split("\n")
    .filter((line) => !line.includes(host.bootDir) && !/\((ext|node|native|unknown|internal):/.test(line))
    .filter((line) => !/^\s+at .*\((native|unknown|<anonymous>)\)$/.test(line))
    .join("\n")
    .replaceAll(`file://${host.jobDir}/`, "")
    .replaceAll(`${host.jobDir}/`, "");
}

const STANDARD = new Set(["name", "message", "stack", "line", "column", "sourceURL", "originalLine", "originalColumn"]);

function extraOf(error: object): Record<string, unknown> | undefined {
  const extra: Record<string, unknown> = {};
  for (const key of Object.keys(error)) if (!STANDARD.has(key)) extra[key] = (error as any)[key];
  return Object.keys(extra).length > 0 ? extra : undefined;
}

/** Syntax errors of Bun come several at once, each with its place. */
function messageOf(error: any): string {
  const at = error.position;
  const place = at ? `\n    at ${at.file}:${at.line}:${at.column}\n    ${String(at.lineText).trim()}` : "";
  const causes = Array.isArray(error.errors) ? error.errors.map((one: any) => `\n${messageOf(one)}`).join("") : "";
  return String(error.message ?? toJson(error)) + place + causes;
}

function describe(host: Host, thrown: any): string {
  if (typeof thrown !== "object" || thrown === null) {
    return toJson({ name: "Error", message: typeof thrown === "string" ? thrown : toJson(thrown), stack: "" });
  }
  const name = String(thrown.name ?? "Error");
  const message = userFrames(host, messageOf(thrown));
  const stack = userFrames(host, thrown.stack);
  try {
    return toJson({ name, message, stack, extra: extraOf(thrown) });
  } catch { // its properties have no JSON
    return toJson({ name, message, stack });
  }
}

/** Link the packages beside every script: Bun has listed the job directory before, and looks no second time. */
function linkPackages(host: Host, packages: string, files: string[]): void {
  const folders = new Set([host.jobDir, ...files.map((file) => file.slice(0, file.lastIndexOf("/")))]);
  for (const folder of folders) host.link(packages, `${folder}/node_modules`);
}

async function run(host: Host, job: Job): Promise<string> {
  const main = place(host, job.path ?? "main", job.code);
  for (const [path, source] of Object.entries(job.modules)) place(host, path, source);
  if (job.node_modules) linkPackages(host, job.node_modules, [main, ...Object.keys(job.modules).map((path) => `${host.jobDir}/${path}`)]);
  send(host, "S");
  const script = await import(main);
  const entry = script[job.entrypoint] ?? script.default?.[job.entrypoint];
  if (typeof entry !== "function") {
    throw new TypeError(`the script exports no function ${job.entrypoint}; write: export async function ${job.entrypoint}() { … }`);
  }
  const given = job.params.map(([name, type]) => convert(job.args[name], type));
  let result = await entry(...given);
  if (isGenerator(result)) result = await stream(host, result);
  return toJson(result);
}

function peakKb(host: Host): string {
  return /VmHWM:\s*(\d+)/.exec(host.readFile("/proc/self/status"))?.[1] ?? "0";
}

/** Wait for the job, run it, answer, exit. */
export async function serve(host: Host): Promise<void> {
  let answered = false;
  // The last that is heard of this process: its log is written at once, so all of it came before.
  const answer = (letter: string, text: string) => {
    if (answered) return;
    answered = true;
    send(host, "M", peakKb(host));
    send(host, letter, text);
    host.exit(letter === "V" ? 0 : 1);
  };
  const fail = (error: unknown) => answer("X", describe(host, error));
  send(host, "R");
  const job = receiveJob(host);
  if (job === null) host.exit(0);
  host.setUp(job);
  host.onUncaught(fail);
  try {
    answer("V", await run(host, job));
  } catch (error) {
    fail(error);
  }
}
