// The single-use Bun process: started ahead, waits for its job on descriptor 3, answers on descriptor 4.
import fs from "node:fs";
import type { Writable } from "node:stream";
import { serve } from "./serve.ts";

function writeAtOnce(fd: number): Writable {
  const write = (data: Uint8Array, _: string, done: () => void) => {
    for (let sent = 0; sent < data.length; ) sent += fs.writeSync(fd, data, sent);
    done();
  };
  const { Writable } = require("node:stream");
  return Object.assign(new Writable({ write, emitClose: false, autoDestroy: false }), { fd, isTTY: false });
}

// Bun's process.stdout writes to a pipe later, loses what is left at the exit, and makes the pipe one that doesn't block,
// so that `console`, too, loses what a full pipe doesn't take. Ours write at once, as Node's do. Touching them takes ten
// milliseconds, so they are replaced only for jobs that may use them.
function replaceStreams(): void {
  for (const [name, fd] of [["stdout", 1], ["stderr", 2]] as const) {
    let stream: Writable | undefined;
    Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => (stream ??= writeAtOnce(fd)) });
  }
  for (const [fd, same] of [[1, 2], [2, 1]]) { // both are one pipe: open it anew, to block again
    fs.closeSync(fd);
    fs.openSync(`/proc/self/fd/${same}`, "w"); // takes the lowest free number
  }
}

void serve({
  jobDir: process.cwd(),
  bootDir: import.meta.dir,
  read: (into) => fs.readSync(3, into),
  write: (bytes) => fs.writeSync(4, bytes),
  setUp: (job) => {
    Object.assign(process.env, job.env);
    const sources = [job.code, ...Object.values(job.modules)];
    if (job.node_modules || sources.some((source) => /stdout|stderr/.test(source))) replaceStreams();
  },
  makeDir: (path) => void fs.mkdirSync(path, { recursive: true }),
  writeFile: (path, text) => fs.writeFileSync(path, text),
  link: (target, path) => fs.symlinkSync(target, path),
  readFile: (path) => fs.readFileSync(path, "utf8"),
  onUncaught: (report) => {
    process.on("uncaughtException", report);
    process.on("unhandledRejection", report);
  },
  exit: (code) => process.exit(code),
});
