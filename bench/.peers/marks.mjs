// What every JavaScript peer's handler does: note when it started.
import { appendFileSync, statSync } from "node:fs";
import { join } from "node:path";

const MARKS = process.env.BENCH_MARKS ?? "/tmp";
let marked = false;

const nowNs = () => BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;

export function start(payload) {
  const now = nowNs();
  if (!marked) {
    marked = true;
    appendFileSync(join(MARKS, "first"), `${now}\n`);
  }
  if (payload.sent) appendFileSync(join(MARKS, "probes"), `${payload.sent} ${now}\n`);
  return payload.ms ?? 0;
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function nProbes() {
  try {
    return Math.floor(statSync(join(MARKS, "probes")).size / 40);
  } catch {
    return 0;
  }
}

// Send one probe at a time: wait until it has started, then 20 ms more, so that the worker is idle again.
export async function probe(n, send) {
  for (let i = 0; i < n; i++) {
    const before = nProbes();
    await send({ sent: String(nowNs()) });
    while (nProbes() === before) await sleep(1);
    await sleep(20);
  }
}

export async function timed(work) {
  const began = performance.now();
  await work();
  console.log(JSON.stringify({ seconds: (performance.now() - began) / 1000 }));
}
