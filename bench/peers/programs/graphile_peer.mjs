// graphile-worker: `setup`, `push N MS`, `single N`, `probe N`, `work CONCURRENCY LOCAL_QUEUE`.
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";

import { probe, sleep, start, timed } from "./marks.mjs";

const [command, ...rest] = process.argv.slice(2);
const numbers = rest.map(Number);
const quiet = new Logger(() => () => {});
const concurrency = command === "work" ? numbers[0] : 1;
const pgPool = new pg.Pool({ max: Math.max(10, Math.min(concurrency + 2, 40)) });

async function work(concurrentJobs, localQueue) {
  const batched = localQueue > 0 ? { localQueue: { size: localQueue }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } : {};
  const runner = await run({
    preset: { worker: { concurrentJobs, pollInterval: 1000, ...batched } },
    pgPool,
    logger: quiet,
    taskList: {
      bench: async (payload) => {
        const ms = start(payload);
        if (ms) await sleep(ms);
      },
    },
  });
  await runner.promise;
}

if (command === "work") {
  await work(...numbers);
} else {
  const utils = await makeWorkerUtils({ pgPool, logger: quiet });
  const commands = {
    setup: async () => utils.migrate(),
    push: async (n, ms) => {
      for (let first = 0; first < n; first += 1000) {
        const size = Math.min(1000, n - first);
        await utils.addJobs(Array.from({ length: size }, () => ({ identifier: "bench", payload: { ms } })));
      }
    },
    single: async (n) => {
      for (let i = 0; i < n; i++) await utils.addJob("bench", { ms: 0 });
    },
    probe: async (n) => probe(n, (payload) => utils.addJob("bench", payload)),
  };
  await timed(() => commands[command](...numbers));
  await utils.release();
  await pgPool.end();
}
