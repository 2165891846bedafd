// The single-use Bun process: started ahead, waits for its job on descriptor 3, answers on descriptor 4.
import fs from "node:fs";
import { serve } from "./serve.ts";

const jobDir = process.cwd();

// Scripts import each other by absolute script path, too: /f/folder/name or /u/user/name, with or without .ts.
Bun.plugin({
  name: "script paths",
  setup(build) {
    build.onResolve({ filter: /^\/[fu]\// }, ({ path }) => ({ path: jobDir + path.replace(/(\.ts)?$/, ".ts") }));
  },
});

await serve({
  jobDir,
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
