// pg-boss: `setup`, `push N MS`, `single N`, `probe N`, `work LOCAL_CONCURRENCY BATCH`.
import { PgBoss } from "pg-boss";

import { probe, sleep, start, timed } from "./marks.mjs";

const [command, ...rest] = process.argv.slice(2);
const numbers = rest.map(Number);
const { PGHOST, PGUSER, PGDATABASE } = process.env;
const boss = new PgBoss({
  host: PGHOST, user: PGUSER, database: PGDATABASE, max: 10,
  supervise: false, schedule: false, useListenNotify: command === "work", migrate: command === "setup",
});
boss.on("error", (error) => console.error(error));
await boss.start();

const commands = {
  setup: async () => {
    await boss.createQueue("bench", { notify: true });
  },
  push: async (n, ms) => {
    for (let first = 0; first < n; first += 1000) {
      await boss.insert("bench", Array.from({ length: Math.min(1000, n - first) }, () => ({ data: { ms } })));
    }
  },
  single: async (n) => {
    for (let i = 0; i < n; i++) await boss.send("bench", { ms: 0 });
  },
  probe: async (n) => probe(n, (payload) => boss.send("bench", payload)),
};

if (command === "work") {
  const [localConcurrency, batchSize] = numbers;
  await boss.work("bench", { localConcurrency, batchSize, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 }, async (jobs) => {
    await Promise.all(jobs.map(async (job) => {
      const ms = start(job.data);
      if (ms) await sleep(ms);
    }));
  });
} else {
  await timed(() => commands[command](...numbers));
  await boss.stop({ graceful: false });
}
