// The single-use Deno process: started ahead, waits for its job on descriptor 3, answers on descriptor 4.
// Deno has no call for a descriptor's number, but /proc/self/fd opens the same pipe again.
import { serve } from "./serve.ts";

const frames = Deno.openSync("/proc/self/fd/3", { read: true });
const answers = Deno.openSync("/proc/self/fd/4", { write: true });

// The first npm package has Deno start its Node layer, which takes ten times as long as all the rest: start it now.
if (Deno.args.includes("packages")) await import("node:module");

void serve({
  jobDir: Deno.cwd(),
  bootDir: import.meta.dirname!,
  read: (into) => frames.readSync(into) ?? 0,
  write: (bytes) => answers.writeSync(bytes),
  setUp: ({ env }) => Object.entries(env).forEach(([name, value]) => Deno.env.set(name, value)),
  makeDir: (path) => Deno.mkdirSync(path, { recursive: true }),
  writeFile: (path, text) => Deno.writeTextFileSync(path, text),
  link: (target, path) => Deno.symlinkSync(target, path),
  readFile: (path) => Deno.readTextFileSync(path),
  onUncaught: (report) => {
    globalThis.addEventListener("error", (event) => (event.preventDefault(), report(event.error)));
    globalThis.addEventListener("unhandledrejection", (event) => (event.preventDefault(), report(event.reason)));
  },
  exit: (code) => Deno.exit(code),
});
