// The single-use Bun process: started ahead, waits for its job on descriptor 3, answers on descriptor 4.
import fs from "node:fs";
import { Writable } from "node:stream";
import { serve } from "./serve.ts";

// Bun's own streams write to a pipe later, lose what is left at the exit, and have `console` lose what a full pipe doesn't
// take. These write at once, as Node's do.
function writeAtOnce(fd: number): Writable {
  const write = (data: Uint8Array, _: string, done: () => void) => {
    for (let sent = 0; sent < data.length; ) sent += fs.writeSync(fd, data, sent);
    done();
  };
  return Object.assign(new Writable({ write, emitClose: false, autoDestroy: false }), { fd, isTTY: false });
}

for (const [name, fd] of [["stdout", 1], ["stderr", 2]] as const) {
  let stream: Writable | undefined; // made at first use: most scripts write by console
  Object.defineProperty(process, name, { configurable: true, enumerable: true, get: () => (stream ??= writeAtOnce(fd)) });
}
for (const [fd, same] of [[1, 2], [2, 1]]) { // defining them has made Bun's, and those had the pipe not block: open it anew
  fs.closeSync(fd);
  fs.openSync(`/proc/self/fd/${same}`, "w"); // takes the lowest free number
}

void serve({
  jobDir: process.cwd(),
  bootDir: import.meta.dir,
  read: (into) => fs.readSync(3, into),
  write: (bytes) => fs.writeSync(4, bytes),
  setEnv: (env) => void Object.assign(process.env, env),
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
