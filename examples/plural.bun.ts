// TypeScript on Bun, with a package from npm.
import pluralize from "pluralize";

export async function main(word: string = "worker", counts: number[] = [0, 1, 2]) {
  console.log(`counting ${word}`);
  return counts.map((n) => pluralize(word, n, true));
}
