// The single-use Bun process: started ahead, waits for its job on descriptor 3, answers on descriptor 4.
import fs from "node:fs";
import { serve } from "./serve.ts";

void serve({
  jobDir: process.cwd(),
  bootDir: import.meta.dir,
  read: (into) => fs.readSync(3, into),
  write: (bytes) => fs.writeSync(4, bytes),
  setEnv: (env) => void Object.assign(process.env, env),
  makeDir: (path) => void fs.mkdirSync(path, { recursive: true }),
  writeFile: (path, text) => fs.writeFileSync(path, text),
  link: (target, path) => fs.symlinkSync(target, path),
  onUncaught: (report) => {
    process.on("uncaughtException", report);
    process.on("unhandledRejection", report);
  },
  exit: (code) => process.exit(code),
});
