// graphile-worker, batched as https://worker.graphile.org/docs/performance describes: jobs are
// fetched BATCH at a time, and completed together.
import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import { batch, command, measured, parts, tasks, url } from "./protocol.mjs";

const logger = new Logger(() => () => {});

if (command === "fill") {
  await runMigrations({ connectionString: url, logger });
  const utils = await makeWorkerUtils({ connectionString: url, logger });
  for (const size of parts(tasks)) {
    await utils.addJobs(Array.from({ length: size }, () => ({ identifier: "noop", payload: { title: "Process user data" } })));
  }
  await utils.release();
} else {
  await measured(async (performed) => {
    const { promise: finished, resolve: finish } = Promise.withResolvers();
    const runner = await run({
      connectionString: url,
      logger,
      noHandleSignals: true,
      taskList: {
        noop: async () => {
          if (performed() === tasks) finish();
        },
      },
      preset: {
        worker: {
          concurrentJobs: 24,
          maxPoolSize: 10,
          localQueue: { size: batch },
          completeJobBatchDelay: 0,
          failJobBatchDelay: 0,
        },
      },
    });
    await finished;
    await runner.stop();
  });
}
