// How `make bench-peers` talks to a worker: it starts `fill TASKS` or `work TASKS BATCH STEP`, and
// measures the process between the lines that the latter prints.
import { once } from "node:events";

export const [command, tasks, batch, step] = process.argv.slice(2).map((text, index) => (index ? Number(text) : text));
export const url = process.env.DATABASE_URL;

const say = (line) => process.stdout.write(`${line}\n`);

/** Calls `work(performed)`, which calls `performed()` for each task and returns after the last. */
export async function measured(work) {
  say("ready");
  await once(process.stdin, "data");
  let count = 0;
  await work(() => {
    count += 1;
    if (count % step === 0 && count < tasks) say(`at ${count}`);
    return count;
  });
  say(`stopped ${count}`);
  await once(process.stdin, "end");
  process.exit(0);
}

/** `total` in parts of at most `size`. */
export function* parts(total, size = 5000) {
  for (let done = 0; done < total; done += size) yield Math.min(size, total - done);
}
