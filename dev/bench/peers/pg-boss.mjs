// pg-boss: jobs are fetched and completed BATCH at a time, without the pauses of its `work`. Its
// maintenance is off, as autovacuum and our reconciler are.
import { PgBoss } from "pg-boss";
import { batch, command, measured, parts, tasks, url } from "./protocol.mjs";

const boss = new PgBoss({ connectionString: url, supervise: false, schedule: false, max: 2 });
boss.on("error", (error) => {
  throw error;
});
await boss.start();

if (command === "fill") {
  await boss.createQueue("noop");
  for (const size of parts(tasks)) {
    await boss.insert("noop", Array.from({ length: size }, () => ({ data: { title: "Process user data" } })));
  }
  await boss.stop();
} else {
  await measured(async (performed) => {
    for (let count = 0; count < tasks; ) {
      const jobs = await boss.fetch("noop", { batchSize: batch });
      for (const _ of jobs) count = performed();
      await boss.complete(
        "noop",
        jobs.map((job) => job.id),
      );
    }
  });
}
